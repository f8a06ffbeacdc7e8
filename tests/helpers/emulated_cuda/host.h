// What the host does to the devices: kernels that it launches, moments in which it waits for them,
// and copies that reach it only once it has waited.
#pragma once
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace emulated {
inline std::mutex host_mutex;
inline std::map<std::string, int64_t> kernels;   // by operator; copies by direction
inline std::map<std::string, int64_t> waits;     // by reason
inline std::atomic<int64_t> sync_debug_mode{0};  // torch's: 2 makes an operator that waits an error

inline void count_kernel(const std::string& name) {
  std::lock_guard<std::mutex> lock(host_mutex);
  ++kernels[name];
}

// A copy to page-locked memory, which the host must not read before it has waited.
struct Underway {
  at::Tensor to, value;
};
inline std::vector<Underway> underway;
inline int64_t num_settled = 0;  // copies before those in `underway`

// The place in the order of all copies at which an event is recorded.
inline int64_t place() {
  std::lock_guard<std::mutex> lock(host_mutex);
  return num_settled + int64_t(underway.size());
}

// Let the copies arrive that were started before a place.
inline void settle(int64_t before) {
  std::vector<Underway> arrived;
  {
    std::lock_guard<std::mutex> lock(host_mutex);
    const auto number = std::clamp<int64_t>(before - num_settled, 0, underway.size());
    arrived.assign(underway.begin(), underway.begin() + number);
    underway.erase(underway.begin(), underway.begin() + number);
    num_settled += number;
  }
  at::AutoDispatchBelowADInplaceOrView plain;
  for (auto& copy : arrived) copy.to.copy_(copy.value);
}

inline void settle_all() { settle(place()); }

// The host waits until the device has done what it was given before a place.
inline void wait(const std::string& reason, int64_t before = place()) {
  {
    std::lock_guard<std::mutex> lock(host_mutex);
    ++waits[reason];
  }
  settle(before);
}

// As `wait`, in an operator, from which nobody expects it.
inline void wait_in(const std::string& reason) {
  TORCH_CHECK(sync_debug_mode < 2, "called a synchronizing CUDA operation (emulated): ", reason);
  wait(reason);
}
}  // namespace emulated
