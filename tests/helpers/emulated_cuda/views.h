// A tensor of a device as a tensor of the host over the same memory, and back.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include "memory.h"

namespace emulated {
using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;

inline bool on_device(const Tensor& tensor) {
  return tensor.defined() && tensor.device().is_cuda();
}

inline Tensor over(c10::Storage storage, DispatchKey key, const Tensor& like) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), DispatchKeySet(key), like.dtype()
  );
  made.unsafeGetTensorImpl()->set_sizes_and_strides(
      like.sizes(), like.strides(), like.storage_offset()
  );
  return made;
}

inline Tensor empty_on(
    Device device, at::IntArrayRef sizes, at::ScalarType dtype,
    std::optional<at::MemoryFormat> format = {}
) {
  c10::DeviceGuard guard(device);
  return at::detail::empty_generic(
      sizes, &device_allocator, DispatchKeySet(DispatchKey::CUDA), dtype, format
  );
}

inline Tensor empty_strided_on(
    Device device, at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype
) {
  c10::DeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      sizes, strides, &device_allocator, DispatchKeySet(DispatchKey::CUDA), dtype
  );
}

// The same memory, seen from the host; it keeps the tensor alive.
inline Tensor to_host(const Tensor& tensor) {
  if (!on_device(tensor)) return tensor;
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  c10::DataPtr data(
      storage->mutable_data(), new Tensor(tensor),
      [](void* kept) { delete static_cast<Tensor*>(kept); }, Device(c10::kCPU)
  );
  c10::Storage shared(
      c10::Storage::use_byte_size_t{}, storage->nbytes(), std::move(data), c10::GetCPUAllocator(),
      true
  );
  Tensor host = over(std::move(shared), DispatchKey::CPU, tensor);
  host._set_conj(tensor.is_conj());
  host._set_neg(tensor.is_neg());
  return host;
}

// A result that the host has computed, moved to memory of the device.
inline Tensor to_device(const Tensor& host, Device device) {
  Tensor made = empty_strided_on(device, host.sizes(), host.strides(), host.scalar_type());
  to_host(made).copy_(host);
  return made;
}
}  // namespace emulated
