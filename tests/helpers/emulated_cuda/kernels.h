// Kernels of the devices' own: memory, views, and copies, which know where their two sides lie.
#pragma once
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>

#include "fallback.h"

namespace emulated {
using c10::SymIntArrayRef;

inline at::ScalarType or_default(std::optional<at::ScalarType> dtype) {
  return dtype.value_or(c10::get_default_dtype_as_scalartype());
}

inline Tensor empty(
    SymIntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format
) {
  return empty_on(named(device), C10_AS_INTARRAYREF_SLOW(sizes), or_default(dtype), format);
}

inline Tensor empty_strided(
    SymIntArrayRef sizes, SymIntArrayRef strides, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>
) {
  return empty_strided_on(
      named(device), C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
      or_default(dtype)
  );
}

// Other memory for a storage, with the beginning of what is in it.
inline void resize_storage(const Tensor& tensor, int64_t bytes) {
  c10::DeviceGuard guard(tensor.device());
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  c10::DataPtr moved = device_allocator.allocate(bytes);
  if (const auto kept = std::min<size_t>(bytes, storage->nbytes()))
    std::memcpy(moved.get(), storage->data(), kept);
  storage->set_data_ptr_noswap(std::move(moved));
  storage->set_nbytes(bytes);
}

inline const Tensor& resize_(
    const Tensor& self, SymIntArrayRef sizes, std::optional<at::MemoryFormat>
) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(sizes));
  const size_t bytes = (tensor->numel() + tensor->storage_offset()) * tensor->itemsize();
  if (bytes > self.storage().nbytes()) resize_storage(self, bytes);
  return self;
}

inline Tensor& set_storage(
    Tensor& self, at::Storage source, c10::SymInt offset, SymIntArrayRef sizes,
    SymIntArrayRef strides
) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_storage_keep_dtype(std::move(source));
  tensor->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), offset.expect_int()
  );
  return self;
}

inline Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(
      self, source.storage(), source.storage_offset(), c10::fromIntArrayRefSlow(source.sizes()),
      c10::fromIntArrayRefSlow(source.strides())
  );
}

// To the host: after a wait, or without one to page-locked memory, where it arrives later.
inline void copy_to_host(Tensor& self, const Tensor& source, bool non_blocking) {
  count_kernel("copy to host");
  if (!non_blocking || !PinnedAllocator::holds(self.storage().data())) {
    wait_in(non_blocking ? "copy to pageable memory" : "copy to host");
    self.copy_(to_host(source));
    return;
  }
  Tensor value = to_host(source).clone();
  if (self.is_contiguous())
    std::memset(self.data_ptr(), 0xFF, self.nbytes());  // nobody may read it yet
  std::lock_guard<std::mutex> lock(host_mutex);
  underway.push_back({self, std::move(value)});
}

inline void copy_to_device(Tensor& self, const Tensor& source, bool non_blocking) {
  count_kernel("copy to device");
  if (!non_blocking) wait_in("copy to device");
  else if (!PinnedAllocator::holds(source.storage().data())) wait_in("copy from pageable memory");
  settle_all();  // the device has written the source by then
  to_host(self).copy_(source);
}

inline Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  at::AutoDispatchBelowADInplaceOrView plain;
  if (source.numel() == 0) return self;
  if (!on_device(self)) {
    copy_to_host(self, source, non_blocking);
  } else if (!on_device(source)) {
    copy_to_device(self, source, non_blocking);
  } else {
    count_kernel("copy");
    to_host(self).copy_(to_host(source));
  }
  return self;
}

inline c10::Scalar local_scalar(const Tensor& self) {
  wait_in("item");
  return to_host(self).item();
}

inline void record_stream(Tensor&, c10::Stream) {}
}  // namespace emulated
