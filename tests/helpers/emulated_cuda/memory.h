// Memory of the devices, under a cap, and page-locked memory of the host.
#pragma once
#include <atomic>
#include <c10/core/Allocator.h>
#include <cstdlib>
#include <map>
#include <mutex>

#include "device.h"

namespace emulated {
struct Usage {
  std::atomic<int64_t> live{0}, peak{0}, cap{int64_t(1) << 40};

  void add(int64_t bytes) {
    const int64_t now = live += bytes;
    int64_t before = peak;
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
  }
};
inline Usage usage[NUM_DEVICES];

struct Block {
  void* data;
  int64_t bytes;
  DeviceIndex device;
};

struct DeviceAllocator final : c10::Allocator {
  static constexpr int64_t GRANULE = 512;  // that of torch's allocator

  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    usage[block->device].live -= block->bytes;
    std::free(block->data);
    delete block;
  }
  c10::DataPtr allocate(size_t wanted) override {
    Usage& here = usage[current];
    const int64_t bytes = (int64_t(wanted) + GRANULE - 1) / GRANULE * GRANULE;
    TORCH_CHECK_WITH(
        OutOfMemoryError, here.live + bytes <= here.cap,
        "CUDA out of memory (emulated). Tried to allocate ", bytes, " bytes. GPU ", int(current),
        " has a capacity of ", here.cap.load(), " bytes, of which ", here.live.load(),
        " are in use."
    );
    auto* block = new Block{bytes ? std::aligned_alloc(GRANULE, bytes) : nullptr, bytes, current};
    here.add(bytes);
    return {block->data, block, &release, current_device()};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
inline DeviceAllocator device_allocator;

// Remembers its blocks, so that copies to and from other memory of the host are found out.
struct PinnedAllocator final : c10::Allocator {
  inline static std::mutex mutex;
  inline static std::map<const char*, size_t> blocks;

  static void release(void* data) {
    std::lock_guard<std::mutex> lock(mutex);
    blocks.erase(static_cast<const char*>(data));
    std::free(data);
  }
  static bool holds(const void* data) {
    std::lock_guard<std::mutex> lock(mutex);
    auto after = blocks.upper_bound(static_cast<const char*>(data));
    if (after == blocks.begin()) return false;
    --after;
    return data < after->first + after->second;
  }
  c10::DataPtr allocate(size_t bytes) override {
    auto* data = static_cast<char*>(std::malloc(std::max<size_t>(bytes, 1)));
    std::lock_guard<std::mutex> lock(mutex);
    blocks[data] = std::max<size_t>(bytes, 1);
    return {data, data, &release, Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
inline PinnedAllocator pinned_allocator;
}  // namespace emulated
