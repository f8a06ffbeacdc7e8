// The devices, and the guard by which torch moves between them. Each has one stream.
#pragma once
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <chrono>

#include "host.h"

namespace emulated {
using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

constexpr DeviceIndex NUM_DEVICES = 2;
inline thread_local DeviceIndex current = 0;

inline Device current_device() { return Device(c10::kCUDA, current); }

// The device that a call names, or the current one where it names none.
inline Device named(std::optional<Device> device) {
  return device.has_value() && device->has_index() ? *device : current_device();
}

// What an event has recorded.
struct Moment {
  int64_t place;
  std::chrono::steady_clock::time_point time;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  DeviceIndex deviceCount() const noexcept override { return NUM_DEVICES; }
  Device getDevice() const override { return current_device(); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() < NUM_DEVICES, "CUDA error: invalid device ordinal (emulated)");
    current = device.index();
  }
  Device exchangeDevice(Device device) const override {
    const Device before = current_device();
    setDevice(device);
    return before;
  }

  static Stream only(Device device) { return Stream(Stream::DEFAULT, named(device)); }
  Stream getStream(Device device) const override { return only(device); }
  Stream getDefaultStream(Device device) const override { return only(device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return only(device); }
  Stream getNewStream(Device device, int) const override { return only(device); }
  Stream exchangeStream(Stream stream) const override { return only(stream.device()); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { wait("stream"); }
  void synchronizeDevice(const DeviceIndex) const override { wait("device"); }

  static Moment& moment(void* event) { return *static_cast<Moment*>(event); }
  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    destroyEvent(*event, 0);
    *event = new Moment{place(), std::chrono::steady_clock::now()};
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Moment*>(event);
  }
  void block(void*, const Stream&) const override {}
  void synchronizeEvent(void* event) const override {
    if (event) wait("event", moment(event).place);
  }
  bool queryEvent(void* event) const override {
    if (event) settle(moment(event).place);  // who is told that it is past may read
    return true;
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    return std::chrono::duration<double, std::milli>(moment(second).time - moment(first).time)
        .count();
  }
};
}  // namespace emulated
