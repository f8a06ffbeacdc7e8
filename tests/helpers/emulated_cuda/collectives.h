// Several ranks, each on a device: their collectives run on the group's backend for the CPU.
#pragma once
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>
#include <torch/library.h>

#include "fallback.h"

namespace emulated {
// DDP times its phases by the clock of a tensor's device.
struct HostTimer final : c10d::Timer {
  explicit HostTimer(Device) {}
  std::optional<int64_t> measureDifference(Event start, Event end) override {
    const auto from = getTimestamp(start), to = getTimestamp(end);
    if (!from || !to) return std::nullopt;
    return *to - *from;
  }
};

// Says nothing of the kernels that are replaced.
struct Quiet final : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};
}  // namespace emulated

namespace c10d {
C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kCUDA, emulated::HostTimer)
}  // namespace c10d

TORCH_LIBRARY_IMPL(c10d, CUDA, m) {
  emulated::Quiet quiet;
  c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  for (const char* name :
       {"allreduce_", "broadcast_", "_allgather_base_", "_reduce_scatter_base_", "allgather_",
        "reduce_scatter_", "reduce_", "gather_", "scatter_", "alltoall_", "alltoall_base_",
        "barrier", "send", "recv_"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&emulated::on_host>());
}
