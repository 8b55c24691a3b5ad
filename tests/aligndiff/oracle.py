"""AlignDiff's `paper` variant once more, straight from the equations: no trimming, no slices, no shared work.

Dropout must be off. Every function takes the same weights and the same noise as the fast path.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from harness.packing import Packing
from harness.windows import pad_left


def guidance(net, history_BL):
    """Eqs 1 to 4 at every position, heads one by one.  [B, L] -> [B, L, D]"""
    g, heads = net.guidance, net.config.guidance_heads
    length, dim = history_BL.shape[1], net.config.embedding_dim
    x = net.items(history_BL) + g.positions[-length:]
    q, k, v = g.query(x), g.key(x), g.value(x)
    width = dim // heads
    index = torch.arange(length)
    allowed = ((history_BL > 0)[:, None, :] & (index[None, :] <= index[:, None])) | torch.eye(length, dtype=torch.bool)
    y = torch.zeros_like(x)
    for head in range(heads):
        u_i = g.query_basis()[:, head * width : (head + 1) * width]
        v_i = g.key_basis()[:, head * width : (head + 1) * width]
        logits = (q @ u_i) @ (k @ v_i).transpose(1, 2) / math.sqrt(dim / heads)
        y = y + logits.masked_fill(~allowed, -torch.inf).softmax(-1) @ v
    y = y + x
    return g.norm(y + g.outer(F.relu(g.inner(y))))


def released_guidance(net, history_BL, index_B):
    """The released attention row by row: one head, normalised query, raw keys and values, only the future hidden.

    A padding position is multiplied by 0 where the released code does it.  [B, L], [B] -> [B, D]
    """
    g, rows = net.guidance, []
    for history, index in zip(history_BL, index_B.tolist(), strict=True):
        is_real = float(history[index] > 0)
        x = (net.items(history) + g.positions[-len(history) :])[: index + 1]
        query = g.norm_query(net.item_norm(x[-1]) * is_real)
        weights = (g.key(x) @ g.query(query) / math.sqrt(net.config.embedding_dim)).softmax(0)
        y = g.norm_attention(weights @ g.value(x) + query)
        y = g.norm_feed_forward(y + g.outer(F.relu(g.inner(y))))
        rows.append(g.norm(y * is_real))
    return torch.stack(rows)


def denoise(net, history_BL, x_t_BD, step_B, h_BD, lambda_BLD):
    """Eq 7 with full attention in every block and no shortcut for the last position.  -> [B, D]"""
    tokens = net.item_norm(net.items(history_BL))
    noisy = x_t_BD + net.denoiser.embed_step(step_B)
    z = lambda_BLD * noisy[:, None] + (1 + h_BD[:, None]) * tokens
    hidden_mask = (history_BL == 0)[:, None, None]
    for block in net.denoiser.blocks:
        a = block.norm_attention(z)
        parts = [layer(a).unflatten(-1, (net.config.num_heads, -1)).transpose(1, 2) for layer in qkv(block)]
        logits = parts[0] @ parts[1].transpose(2, 3) / math.sqrt(parts[0].shape[-1])
        read = logits.masked_fill(hidden_mask, -torch.inf).softmax(-1) @ parts[2]
        z = z + block.attention.output(read.transpose(1, 2).flatten(2))
        inner = block.feed_forward.inner(block.norm_feed_forward(z))
        z = z + block.feed_forward.outer(F.gelu(inner, approximate="tanh"))
    return net.denoiser.norm(z)[:, -1]


def qkv(block):
    return block.attention.query, block.attention.key, block.attention.value


def energy_gradient(net, x_BD):
    """grad_x of the default energy: a GELU MLP."""
    if not x_BD.requires_grad:
        x_BD = x_BD.detach().requires_grad_()
    value = x_BD
    for layer in net.energy.layers[:-1]:
        value = F.gelu(layer(value))
    return torch.autograd.grad(net.energy.layers[-1](value).sum(), x_BD, create_graph=True)[0]


def loss(net, batch, noise, *, eta):
    """Eqs 5 to 14 for one batch in windows of max_len."""
    config = net.config
    history = pad_left(batch.history_BL, config.max_len)
    t, y = noise.step_B, net.items(batch.target_B)
    alpha_bar = torch.from_numpy(net.target_process.alpha_bar_T)[t][:, None].float()
    x_0 = net.alpha_0**0.5 * y + (1 - net.alpha_0) ** 0.5 * noise.start_BD
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise.target_BD
    h = torch.where(noise.null_B[:, None], net.null, guidance(net, history)[:, -1])
    lam = config.lambda_mean + config.lambda_std * noise.normal_for(Packing([history])).view(*history.shape, -1)
    x = denoise(net, history, x_t, t, h, lam)
    cross_entropy = F.cross_entropy(x @ net.items.weight[1:].T, batch.target_B - 1)
    alpha_bar_s = torch.from_numpy(net.energy_process.alpha_bar_T)[t][:, None].float()
    y_s = alpha_bar_s.sqrt() * y + (1 - alpha_bar_s).sqrt() * noise.energy_BD
    s_x, s_y, sigma2 = energy_gradient(net, x), energy_gradient(net, y_s), 1 - alpha_bar_s
    dsm = 0.5 * (s_x - ((s_y - s_x) / sigma2 + s_x * sigma2)).norm(dim=-1) ** 2
    return cross_entropy + eta * dsm.mean()


def reverse(net, history_BL, noise):
    """Eq 11, one user after the other would be the same: both branches apart, h recomputed at each step."""
    config, process = net.config, net.target_process
    x = noise.normal(config.embedding_dim)
    alpha_bar = [1.0, *process.alpha_bar_T]
    for t in range(config.num_steps, 0, -1):
        beta, now, before = process.beta_T[t - 1], alpha_bar[t], alpha_bar[t - 1]
        lam = config.lambda_mean + config.lambda_std * noise.normal_per_position(history_BL.shape[1], x.shape[1])
        step = torch.full((len(x),), t - 1)
        h = guidance(net, history_BL)[:, -1]
        w = config.guidance_weight
        given = denoise(net, history_BL, x, step, h, lam)
        null = denoise(net, history_BL, x, step, net.null.expand_as(h), lam)
        x_0 = (1 + w) * given - w * null
        with torch.enable_grad():
            x_0 = (x_0 - config.correction * energy_gradient(net, x_0.detach())).detach()
        mean = before**0.5 * beta / (1 - now) * x_0 + (1 - beta) ** 0.5 * (1 - before) / (1 - now) * x
        spread = (beta * (1 - before) / (1 - now)) ** 0.5
        x = mean + spread * noise.normal(config.embedding_dim) if t > 1 else mean
    return x
