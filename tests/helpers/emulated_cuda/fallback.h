// Every operator that has no kernel of its own: the CPU's kernel runs over the same memory.
#pragma once
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <unordered_set>

#include "random.h"
#include "views.h"

namespace emulated {
using c10::IValue;

// Operators whose result has a shape that only the device knows.
inline const std::unordered_set<std::string> WAITING = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::is_nonzero",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::unique_dim_consecutive",
    "aten::bincount",
    "aten::histc",
    "aten::multinomial",
    "aten::_linalg_check_errors"
};
// Operators that take indices from the host, and copy them to the device.
inline const std::unordered_set<std::string> INDEXING = {
    "aten::index",         "aten::index_put",        "aten::index_put_", "aten::_index_put_impl_",
    "aten::_unsafe_index", "aten::_unsafe_index_put"
};
// Operators that only look at a tensor in another way; others of the kind are in kernels.h.
inline const std::unordered_set<std::string> NO_KERNEL = {
    "aten::_reshape_alias", "aten::unfold", "aten::alias", "aten::detach", "aten::view_as_real",
    "aten::view_as_complex"
};

// One call of an operator: its arguments on the host, and its results back on the device.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : name_(op.operator_name().name), schema_(op.schema()), stack_(stack) {}

  void take_arguments() {
    const size_t number = schema_.arguments().size();
    for (size_t i = 0; i < number; ++i) {
      IValue& argument = (*stack_)[stack_->size() - number + i];
      const bool indices = INDEXING.count(name_) && i == 1;
      argument = taken(argument, indices);
    }
    TORCH_CHECK(
        !foreign_.defined() || devices_.empty(),
        "Expected all tensors to be on the same device, but found at least two devices, ",
        devices_.empty() ? Device(c10::kCUDA) : devices_[0], " and cpu! (emulated, in ", name_, ")"
    );
    for (const auto& device : devices_)
      TORCH_CHECK(
          device == devices_[0],
          "Expected all tensors to be on the same device, but found at least two devices, ",
          devices_[0], " and ", device, "! (emulated, in ", name_, ")"
      );
    for (const auto& host : hosts_) sizes_.push_back(host.sizes().vec());
  }

  void note() const {
    const bool unknown_size = name_ == "aten::repeat_interleave" && stack_->back().isNone();
    if (WAITING.count(name_) || unknown_size) wait_in(name_);
    if (masked_) wait_in(name_ + " by a mask");
    if (indexed_by_host_) wait_in(name_ + " by a tensor of the host");
    if (!NO_KERNEL.count(name_)) count_kernel(name_);
  }

  void give_results() {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      if (hosts_[i].sizes() == at::IntArrayRef(sizes_[i])) continue;
      originals_[i].resize_(hosts_[i].sizes());  // `out` of another size
      to_host(originals_[i]).copy_(hosts_[i]);
    }
    const size_t number = schema_.returns().size();
    for (size_t i = 0; i < number; ++i) {
      IValue& result = (*stack_)[stack_->size() - number + i];
      result = given(result);
    }
  }

  Device device() const { return devices_.empty() ? current_device() : devices_[0]; }

 private:
  static bool holds_tensors(const IValue& value) {
    if (!value.isList()) return false;
    auto type = value.toList().elementType();
    while (auto list = type->cast<c10::ListType>()) type = list->getElementType();
    return type->isSubtypeOf(*c10::OptionalType::ofTensor());
  }

  template <typename Change>
  static IValue mapped(const IValue& list, const Change& change) {
    c10::impl::GenericList changed(list.toList().elementType());
    for (const IValue& item : list.toList().vec()) changed.push_back(change(item));
    return changed;
  }

  IValue taken(const IValue& value, bool indices) {
    if (value.isTensor()) return taken_tensor(value.toTensor(), indices);
    if (holds_tensors(value))
      return mapped(value, [&](const IValue& item) { return taken(item, indices); });
    if (!value.isDevice() || !value.toDevice().is_cuda()) return value;
    devices_.push_back(named(value.toDevice()));
    return Device(c10::kCPU);
  }

  Tensor taken_tensor(const Tensor& tensor, bool index) {
    if (!tensor.defined()) return tensor;
    masked_ |= index && (tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte);
    if (!on_device(tensor)) {
      if (index) indexed_by_host_ = true;
      else if (tensor.dim() > 0) foreign_ = tensor;  // a number of the host may mix in
      return tensor;
    }
    devices_.push_back(tensor.device());
    originals_.push_back(tensor);
    hosts_.push_back(to_host(tensor));
    return hosts_.back();
  }

  IValue given(const IValue& value) {
    if (value.isTensor()) return given_tensor(value.toTensor());
    if (holds_tensors(value)) return mapped(value, [&](const IValue& item) { return given(item); });
    return value;
  }

  Tensor given_tensor(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (size_t i = 0; i < hosts_.size(); ++i)
      if (tensor.is_same(hosts_[i])) return originals_[i];
    for (size_t i = 0; i < hosts_.size(); ++i)
      if (tensor.storage().is_alias_of(hosts_[i].storage()))
        return over(originals_[i].storage(), DispatchKey::CUDA, tensor);
    return to_device(tensor, device());
  }

  const std::string name_;
  const c10::FunctionSchema& schema_;
  torch::jit::Stack* stack_;
  std::vector<Device> devices_;
  std::vector<Tensor> originals_, hosts_;
  std::vector<std::vector<int64_t>> sizes_;  // of hosts_, before the call
  Tensor foreign_;
  bool masked_ = false, indexed_by_host_ = false;
};

inline void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView plain;
  Call call(op, stack);
  call.take_arguments();
  call.note();
  const auto run = [&] { op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack); };
  if (op.hasTag(at::Tag::nondeterministic_seeded)) with_numbers_of(call.device(), run);
  else run();
  call.give_results();
}
}  // namespace emulated
