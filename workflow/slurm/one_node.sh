#!/usr/bin/env bash
# Run the tiny workflow through a real SLURM of one node on this machine, then take it down again.
#
#   workflow/slurm/one_node.sh [PYTHON]     PYTHON has the suite and snakemake-executor-plugin-slurm
#
# Needs root and Debian's packages: apt-get install -y --no-install-recommends slurm-wlm munge
# No systemd, no cgroups, no GPU: two GPUs are pretended by character devices that every machine has, so that
# SLURM assigns CUDA_VISIBLE_DEVICES for real while the jobs compute on the CPU.
set -euo pipefail

python=${1:-.venv/bin/python}
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(realpath --no-symlinks "$python")
work=$(mktemp -d /tmp/one-node.XXXXXX)
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)

for tool in sbatch slurmctld slurmd munged; do
  PATH=$PATH:/usr/sbin command -v "$tool" > /dev/null || { echo "error: $tool is not installed" >&2; exit 1; }
done
[ ! -e /etc/slurm/slurm.conf ] || { echo "error: this machine has a SLURM already: /etc/slurm/slurm.conf" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "error: this needs root" >&2; exit 1; }
export PATH=$PATH:/usr/sbin

stop() {
  scancel --quiet --user root 2> /dev/null || true
  for name in slurmd slurmctld munged; do
    if [ -s "$work/$name.pid" ]; then kill "$(cat "$work/$name.pid")" 2> /dev/null || true; fi
  done
  sleep 2
  rm -rf "$work" /etc/slurm/slurm.conf /etc/slurm/gres.conf
}
trap stop EXIT
trap 'exit 143' TERM INT

install -d /etc/slurm
chmod 755 "$work"
install -d -o munge -g munge /run/munge
install -d -o munge -g munge "$work/munge"
install -d -o slurm -g slurm "$work/state" "$work/log"
install -d "$work/spool"
cat > /etc/slurm/slurm.conf << END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/state/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MinJobAge=300
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=01:00:00 State=UP
END
printf 'NodeName=%s Name=gpu File=%s\n' "$host" /dev/null "$host" /dev/zero > /etc/slurm/gres.conf

runuser -u munge -- /usr/sbin/munged --pid-file="$work/munge/munged.pid" --log-file="$work/munge/munged.log" --force
ln -s "$work/munge/munged.pid" "$work/munged.pid"
munge -n | unmunge > /dev/null
slurmctld
ln -s "$work/state/slurmctld.pid" "$work/slurmctld.pid"
sleep 2
slurmd
for _ in $(seq 30); do
  [ "$(sinfo --noheader --format=%T)" = idle ] && break
  sleep 1
done
sinfo
srun --gres=gpu:1 env | grep '^CUDA_VISIBLE_DEVICES'

# The workflow, one GPU per training asked for from SLURM; small requests, because this node is small.
run=$work/run
mkdir -p "$run"
cp -r "$root"/{config,workflow,profiles,harness,aligndiff,baselines,analysis,Snakefile,environment.yml,pyproject.toml} "$run"
mkdir -p "$run/tests" && cp -r "$root/tests/data" "$run/tests/"
cd "$run"
# Without accounting the plugin must ask squeue; it waits 40 s before its first question unless told otherwise.
PATH=$(dirname "$python"):$PATH "$python" -m snakemake --workflow-profile profiles/slurm --configfile config/tiny.yaml \
  --slurm-status-command squeue --slurm-no-account --slurm-init-seconds-before-status-checks 5 \
  --default-resources mem_mb=1000 runtime=10 --set-resources train:mem_mb=1500 train:runtime=10 train:gpu=1 \
  --groups train=cells --group-components cells=2 --latency-wait 10 results/tiny/tables &
snakemake=$!
while kill -0 $snakemake 2> /dev/null; do
  squeue --noheader --states=running --Format=JobID:6,tres-per-job:14,tres-alloc:60,Name:40 >> "$work/queue.log" || true
  sleep 2
done
wait $snakemake
echo "jobs seen running:"
sort -u "$work/queue.log"
ls results/tiny/runs/toy/*/seed*/record.json
