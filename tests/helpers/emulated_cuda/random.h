// Random numbers: each device has a stream of its own, apart from the CPU's.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <array>

#include "device.h"

namespace emulated {
// The CPU's generator, but a seed gives other numbers.
struct DeviceGenerator final : at::CPUGeneratorImpl {
  void set_current_seed(uint64_t seed) override {
    at::CPUGeneratorImpl::set_current_seed(seed ^ 0x9E3779B9u);
  }
};

inline at::Generator& generator(DeviceIndex device) {
  static std::array<at::Generator, NUM_DEVICES> all = [] {
    std::array<at::Generator, NUM_DEVICES> made;
    for (auto& one : made) {
      one = at::make_generator<DeviceGenerator>();
      one.set_current_seed(at::default_rng_seed_val);
    }
    return made;
  }();
  return all[device];
}

// Run a kernel of the CPU on the numbers of a device.
template <typename Run>
void with_numbers_of(Device device, const Run& run) {
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  at::Generator host = at::detail::getDefaultCPUGenerator();
  at::Generator& own = generator(device.index());
  const at::Tensor before = host.get_state();
  host.set_state(own.get_state());
  try {
    run();
  } catch (...) {
    host.set_state(before);
    throw;
  }
  own.set_state(host.get_state());
  host.set_state(before);
}
}  // namespace emulated
