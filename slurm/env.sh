# Environment of every task; sourced by the job scripts. A variable that is set already stays as it is,
# so a site's own choice wins: NCCL_SOCKET_IFNAME=ib0 inbatch submit ...

# --- where the ranks meet -------------------------------------------------------------------------------
# The first node of the job listens. The port follows from the job, so jobs that share a node do not meet.
export MASTER_ADDR="${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}"
export MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}"

# --- NCCL: networks -------------------------------------------------------------------------------------
# Interfaces for the first contact between nodes. Left alone, NCCL may take a container's or a virtual
# machine's bridge, which exists on every node and leads nowhere: the job then hangs at its start.
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-^lo,docker,veth,virbr,br-}"
# An InfiniBand packet is sent again after 4.096 us * 2^22 = 17 s, seven times. A switch that reroutes takes
# longer than the default of four times less, and one lost link would end a run of days.
export NCCL_IB_TIMEOUT="${NCCL_IB_TIMEOUT:-22}"

# --- NCCL: what a failed job leaves behind --------------------------------------------------------------
# Errors of NCCL with their cause. INFO, for a job that does not start, prints pages per rank.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
# When one collective fails, the process ends, and srun ends the others. Without this a rank whose peer
# died waits in the kernel of a collective for ever. (It is torch's default; a module file of the site that
# sets 0 would otherwise go unnoticed.)
export TORCH_NCCL_ASYNC_ERROR_HANDLING="${TORCH_NCCL_ASYNC_ERROR_HANDLING:-3}"
# The last 2,000 collectives of each rank are written down when one times out (strategy.timeout_s): which
# rank was missing, and where the others waited.
export TORCH_FR_BUFFER_SIZE="${TORCH_FR_BUFFER_SIZE:-2000}"
export TORCH_NCCL_DUMP_ON_TIMEOUT="${TORCH_NCCL_DUMP_ON_TIMEOUT:-1}"

# --- the process ----------------------------------------------------------------------------------------
# Batches differ in length; segments that grow keep the GPU's memory from breaking up between steps.
export PYTORCH_ALLOC_CONF="${PYTORCH_ALLOC_CONF:-expandable_segments:True}"
# One thread per core of the task. More tasks on a node than one would otherwise take all cores each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# Tokenizers run in loader processes; threads of their own in each would only compete.
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
# Lines reach the log when they are printed, also those before a kill.
export PYTHONUNBUFFERED=1
# A crash in native code leaves the Python stack in the log.
export PYTHONFAULTHANDLER=1
