// A CUDA device for a torch without CUDA: its memory is the host's, its operators run on the CPU.
// Loaded before `import torch`, so that the hooks below are there when torch asks for them first.
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/library.h>

#include "collectives.h"
#include "kernels.h"

namespace emulated {
struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return NUM_DEVICES; }
  DeviceIndex deviceCount() const override { return NUM_DEVICES; }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex device) const override {
    guard().setDevice(Device(c10::kCUDA, device));
  }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    return guard().exchangeDevice(Device(c10::kCUDA, device)).index();
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  void deviceSynchronize(DeviceIndex device) const override { guard().synchronizeDevice(device); }
  bool isPinnedPtr(const void* data) const override { return PinnedAllocator::holds(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
  const at::Generator& getDefaultGenerator(DeviceIndex device) const override {
    return generator(device < 0 ? current : device);
  }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::detail::createCPUGenerator();
  }

  static const Guard& guard() {
    static const Guard made;
    return made;
  }
};

const bool ready = [] {
  c10::impl::registerDeviceGuard(c10::kCUDA, &Hooks::guard());
  c10::SetAllocator(c10::kCUDA, &device_allocator, /*priority=*/1);
  return true;
}();

std::vector<std::string> lines(const std::map<std::string, int64_t>& counts) {
  std::lock_guard<std::mutex> lock(host_mutex);
  std::vector<std::string> found;
  for (const auto& [name, count] : counts) found.push_back(name + "\t" + std::to_string(count));
  return found;
}

int64_t live(int64_t device) { return usage[device].live; }
int64_t peak(int64_t device) { return usage[device].peak; }
int64_t cap(int64_t device) { return usage[device].cap; }
void set_cap(int64_t device, int64_t bytes) { usage[device].cap = bytes; }
void reset_peak(int64_t device) { usage[device].peak = usage[device].live.load(); }
int64_t num_devices() { return NUM_DEVICES; }
int64_t device() { return current; }
void set_device(int64_t device) { Hooks::guard().setDevice(Device(c10::kCUDA, device)); }
void synchronize() { Hooks::guard().synchronizeDevice(current); }
int64_t get_sync_debug_mode() { return sync_debug_mode; }
void set_sync_debug_mode(int64_t mode) { sync_debug_mode = mode; }
at::Generator device_generator(int64_t device) { return generator(device); }
}  // namespace emulated

namespace at {
C10_REGISTER_CLASS(
    CUDAHooksRegistry, CUDAHooks, emulated::Hooks
)  // under the name that torch looks for
}  // namespace at

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&emulated::on_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &emulated::empty);
  m.impl("empty_strided", &emulated::empty_strided);
  m.impl("resize_", &emulated::resize_);
  m.impl("copy_", &emulated::copy_);
  m.impl("_local_scalar_dense", &emulated::local_scalar);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("set_.source_Storage_storage_offset", &emulated::set_storage);
  m.impl("set_.source_Tensor", &emulated::set_tensor);
  m.impl("record_stream", &emulated::record_stream);
  // A GPU has kernels of its own for these, which see their arguments first. Other devices get a
  // composition from torch.
  auto& operators = c10::Dispatcher::singleton();
  for (const auto& name : operators.getAllOpNames()) {
    const auto op = operators.findOp(name);
    const bool structured =
        op && op->hasKernelForDispatchKey(c10::DispatchKey::CPU) &&
        op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional);
    if (structured || name.name == "aten::native_layer_norm" ||
        name.name.rfind("aten::_foreach_", 0) == 0)
      m.impl(
          c10::toString(name).c_str(),
          torch::CppFunction::makeFromBoxedFunction<&emulated::on_host>()
      );
  }
}

TORCH_LIBRARY(emulated_cuda, m) {
  m.def("live", &emulated::live);
  m.def("peak", &emulated::peak);
  m.def("reset_peak", &emulated::reset_peak);
  m.def("cap", &emulated::cap);
  m.def("set_cap", &emulated::set_cap);
  m.def("num_devices", &emulated::num_devices);
  m.def("device", &emulated::device);
  m.def("set_device", &emulated::set_device);
  m.def("synchronize", &emulated::synchronize);
  m.def("get_sync_debug_mode", &emulated::get_sync_debug_mode);
  m.def("set_sync_debug_mode", &emulated::set_sync_debug_mode);
  m.def("generator", &emulated::device_generator);
  m.def("count_kernel", [](const std::string& name) { emulated::count_kernel(name); });
  m.def("kernels", [] { return emulated::lines(emulated::kernels); });
  m.def("waits", [] { return emulated::lines(emulated::waits); });
  m.def("host_view", &emulated::to_host);
  m.def("resize_storage", &emulated::resize_storage);
}
