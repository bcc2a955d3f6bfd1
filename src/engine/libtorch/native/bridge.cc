// The bridge from JavaScript to PyTorch: every ATen operator by name, through the boxed dispatcher.
//
// A tensor is a small integer on the JavaScript side, an index into `tensors` here. An operator is looked up once; the
// kinds of its parameters come from its schema, so a call only converts values and jumps. Plain N-API and no state
// besides the two tables, because a call should cost about a microsecond.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <node_api.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using c10::IValue;

// Never destroyed: tensors may hold references to JavaScript memory, which is gone when the process ends.
std::vector<at::Tensor>& tensors = *new std::vector<at::Tensor>();
std::vector<int32_t>& freed = *new std::vector<int32_t>();

enum class Kind { Tensor, TensorList, Int, IntList, Float, FloatList, Number, Bool, BoolList, String, Device, Other };

struct Parameter {
  std::string name;
  Kind kind;
  bool optional;         // accepts null
  bool optional_elements; // a list of tensors with gaps
  bool has_default;
  IValue fallback;
};

struct Operator {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Parameter> parameters;
};

std::vector<Operator>& operators = *new std::vector<Operator>();

/** A mistake on the JavaScript side, as opposed to PyTorch's own errors. */
struct BadCall : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(napi_status status, const char* what) {
  if (status != napi_ok) throw BadCall(what);
}

// JavaScript → C++

double number(napi_env env, napi_value value) {
  double result;
  check(napi_get_value_double(env, value, &result), "a number is expected");
  return result;
}

int64_t integer(napi_env env, napi_value value) {
  int64_t result;
  check(napi_get_value_int64(env, value, &result), "a number is expected");
  return result;
}

bool boolean(napi_env env, napi_value value) {
  bool result;
  check(napi_get_value_bool(env, value, &result), "a boolean is expected");
  return result;
}

std::string string(napi_env env, napi_value value) {
  size_t length;
  check(napi_get_value_string_utf8(env, value, nullptr, 0, &length), "a string is expected");
  std::string result(length, '\0');
  napi_get_value_string_utf8(env, value, &result[0], length + 1, &length);
  return result;
}

at::Tensor& tensor(napi_env env, napi_value value) {
  int32_t id;
  check(napi_get_value_int32(env, value, &id), "a tensor is expected");
  if (id < 0 || static_cast<size_t>(id) >= tensors.size() || !tensors[id].defined())
    throw BadCall("the tensor is disposed");
  return tensors[id];
}

napi_valuetype type_of(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  return type;
}

template <typename T, typename Convert>
std::vector<T> list(napi_env env, napi_value value, Convert convert) {
  uint32_t length;
  check(napi_get_array_length(env, value, &length), "an array is expected");
  std::vector<T> result;
  result.reserve(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    napi_get_element(env, value, i, &element);
    result.push_back(convert(env, element));
  }
  return result;
}

IValue argument(napi_env env, napi_value value, const Parameter& parameter) {
  const napi_valuetype type = type_of(env, value);
  if (type == napi_undefined) {
    if (parameter.has_default) return parameter.fallback;
    if (parameter.optional) return IValue();
    throw BadCall("the argument is missing");
  }
  if (type == napi_null && parameter.kind == Kind::Tensor && !parameter.optional) return at::Tensor(); // undefined
  if (type == napi_null) return IValue();
  switch (parameter.kind) {
    case Kind::Tensor: return tensor(env, value);
    case Kind::TensorList: {
      if (!parameter.optional_elements)
        return list<at::Tensor>(env, value, [](napi_env e, napi_value v) { return tensor(e, v); });
      c10::List<c10::optional<at::Tensor>> result;
      uint32_t length;
      check(napi_get_array_length(env, value, &length), "an array is expected");
      for (uint32_t i = 0; i < length; i++) {
        napi_value element;
        napi_get_element(env, value, i, &element);
        if (type_of(env, element) == napi_number) result.push_back(tensor(env, element));
        else result.push_back(c10::optional<at::Tensor>());
      }
      return result;
    }
    case Kind::Int: return integer(env, value);
    case Kind::IntList:
      // A single number is also accepted for a list of fixed length, such as a kernel's size.
      if (type == napi_number) return std::vector<int64_t>{integer(env, value)};
      return list<int64_t>(env, value, integer);
    case Kind::Float: return number(env, value);
    case Kind::FloatList: return list<double>(env, value, number);
    case Kind::Number: {
      if (type == napi_boolean) return boolean(env, value);
      const double x = number(env, value);
      // An integral value stays an integer, so that integer tensors keep their type.
      if (x == static_cast<double>(static_cast<int64_t>(x)) && std::abs(x) < 9e15) return static_cast<int64_t>(x);
      return x;
    }
    case Kind::Bool: return boolean(env, value);
    case Kind::BoolList: return list<bool>(env, value, boolean);
    case Kind::String: return string(env, value);
    case Kind::Device: return c10::Device(string(env, value));
    case Kind::Other: break;
  }
  throw BadCall("the bridge cannot pass a value of this type");
}

// C++ → JavaScript

int32_t keep(at::Tensor&& value) {
  if (!freed.empty()) {
    const int32_t id = freed.back();
    freed.pop_back();
    tensors[id] = std::move(value);
    return id;
  }
  tensors.push_back(std::move(value));
  return static_cast<int32_t>(tensors.size()) - 1;
}

napi_value result(napi_env env, IValue&& value) {
  napi_value out;
  if (value.isTensor()) {
    at::Tensor tensor = std::move(value).toTensor();
    if (tensor.defined()) napi_create_int32(env, keep(std::move(tensor)), &out);
    else napi_get_null(env, &out);
  } else if (value.isTensorList()) {
    const auto list = value.toTensorVector();
    napi_create_array_with_length(env, list.size(), &out);
    for (size_t i = 0; i < list.size(); i++) {
      napi_value id;
      napi_create_int32(env, keep(at::Tensor(list[i])), &id);
      napi_set_element(env, out, i, id);
    }
  } else if (value.isInt()) {
    napi_create_int64(env, value.toInt(), &out);
  } else if (value.isDouble()) {
    napi_create_double(env, value.toDouble(), &out);
  } else if (value.isBool()) {
    napi_get_boolean(env, value.toBool(), &out);
  } else if (value.isString()) {
    const std::string& text = value.toStringRef();
    napi_create_string_utf8(env, text.data(), text.size(), &out);
  } else {
    napi_get_null(env, &out);
  }
  return out;
}

/** Runs a function of the module and turns its exceptions into JavaScript errors. */
template <typename Body>
napi_value guarded(napi_env env, Body body) {
  try {
    c10::InferenceMode no_tape; // tfjs keeps the tape
    return body();
  } catch (const c10::Error& error) {
    napi_throw_error(env, "TORCH", error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    napi_throw_error(env, "MEMORY", "not enough memory");
  } catch (const std::exception& error) {
    napi_throw_error(env, "BRIDGE", error.what());
  }
  return nullptr;
}

template <size_t N>
size_t arguments(napi_env env, napi_callback_info info, napi_value (&values)[N]) {
  size_t count = N;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  return count;
}

// The module's functions

Parameter parameter_of(const c10::Argument& argument) {
  Parameter parameter{argument.name(), Kind::Other, false, false, false, IValue()};
  c10::TypePtr type = argument.type();
  const auto unwrap = [](c10::TypePtr& t, bool& flag) {
    if (t->kind() != c10::TypeKind::OptionalType) return;
    flag = true;
    t = t->castRaw<c10::OptionalType>()->getElementType();
  };
  const auto plain = [](const c10::TypePtr& t) {
    switch (t->kind()) {
      case c10::TypeKind::TensorType: return Kind::Tensor;
      case c10::TypeKind::IntType: return Kind::Int;
      case c10::TypeKind::FloatType: return Kind::Float;
      case c10::TypeKind::NumberType: return Kind::Number;
      case c10::TypeKind::BoolType: return Kind::Bool;
      case c10::TypeKind::StringType: return Kind::String;
      case c10::TypeKind::DeviceObjType: return Kind::Device;
      default: return Kind::Other;
    }
  };
  unwrap(type, parameter.optional);
  if (type->kind() == c10::TypeKind::ListType) {
    c10::TypePtr element = type->castRaw<c10::ListType>()->getElementType();
    unwrap(element, parameter.optional_elements);
    switch (plain(element)) {
      case Kind::Tensor: parameter.kind = Kind::TensorList; break;
      case Kind::Int: parameter.kind = Kind::IntList; break;
      case Kind::Float: parameter.kind = Kind::FloatList; break;
      case Kind::Bool: parameter.kind = Kind::BoolList; break;
      default: break;
    }
  } else {
    parameter.kind = plain(type);
  }
  if (argument.default_value()) {
    parameter.has_default = true;
    parameter.fallback = *argument.default_value();
  }
  return parameter;
}

/** find(name, overload) → the operator's number, or null if this PyTorch has no such operator. */
napi_value find(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[2];
    arguments(env, info, values);
    const std::string name = string(env, values[0]), overload = string(env, values[1]);
    napi_value out;
    const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!handle) {
      napi_get_null(env, &out);
      return out;
    }
    Operator op{*handle, name + (overload.empty() ? "" : "." + overload), {}};
    for (const auto& argument : handle->schema().arguments()) op.parameters.push_back(parameter_of(argument));
    operators.push_back(std::move(op));
    napi_create_uint32(env, operators.size() - 1, &out);
    return out;
  });
}

constexpr size_t MOST_ARGUMENTS = 24;

/** The shapes of a list of tensors; only the first few of a long list. */
std::string shapes(napi_env env, napi_value list) {
  constexpr uint32_t SHOWN = 3;
  uint32_t length = 0;
  napi_get_array_length(env, list, &length);
  std::ostringstream text;
  for (uint32_t i = 0; i < std::min(length, SHOWN); i++) {
    napi_value element;
    int32_t id;
    napi_get_element(env, list, i, &element);
    if (napi_get_value_int32(env, element, &id) == napi_ok) text << (i > 0 ? " " : "") << tensors[id].sizes();
  }
  if (length > SHOWN) text << " … (" << length << " in all)";
  return text.str();
}

/** For error messages: the operator with the shapes of its tensors or, if it takes none, its lists of sizes. */
std::string describe(napi_env env, const Operator& op, const napi_value* values, size_t count) {
  std::string text = op.name + "(";
  const auto add = [&](const Parameter& parameter, const std::string& value) {
    if (text.back() != '(') text += ", ";
    text += parameter.name + " " + value;
  };
  bool of_tensors = false;
  for (size_t i = 0; i < op.parameters.size() && i < count; i++) {
    const Parameter& parameter = op.parameters[i];
    int32_t id;
    bool is_list = false;
    if (parameter.kind == Kind::Tensor && napi_get_value_int32(env, values[i], &id) == napi_ok) {
      std::ostringstream shape;
      shape << tensors[id].sizes();
      add(parameter, shape.str());
      of_tensors = true;
    } else if (parameter.kind == Kind::TensorList && napi_is_array(env, values[i], &is_list) == napi_ok && is_list) {
      add(parameter, shapes(env, values[i]));
      of_tensors = true;
    }
  }
  for (size_t i = 0; i < op.parameters.size() && i < count && !of_tensors; i++) {
    bool is_list = false;
    if (op.parameters[i].kind != Kind::IntList || napi_is_array(env, values[i], &is_list) != napi_ok || !is_list) continue;
    std::ostringstream sizes;
    sizes << c10::IntArrayRef(list<int64_t>(env, values[i], integer));
    add(op.parameters[i], sizes.str());
  }
  return text + ")";
}

/** schema(operator) → its signature in PyTorch's notation. */
napi_value schema(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[1], out;
    arguments(env, info, values);
    std::ostringstream text;
    text << operators.at(integer(env, values[0])).handle.schema();
    napi_create_string_utf8(env, text.str().c_str(), NAPI_AUTO_LENGTH, &out);
    return out;
  });
}

/** call(operator, ...arguments) → a tensor, number, boolean, string or null; an array of them if the operator returns several. */
napi_value call(napi_env env, napi_callback_info info) {
  napi_value values[MOST_ARGUMENTS + 1];
  const size_t count = arguments(env, info, values);
  return guarded(env, [&]() -> napi_value {
    const Operator& op = operators.at(integer(env, values[0]));
    if (count - 1 > op.parameters.size())
      throw BadCall(op.name + ": " + std::to_string(count - 1) + " arguments for " +
                    std::to_string(op.parameters.size()) + " parameters");
    torch::jit::Stack stack;
    stack.reserve(op.parameters.size());
    for (size_t i = 0; i < op.parameters.size(); i++) {
      const Parameter& parameter = op.parameters[i];
      if (i + 1 < count) {
        try {
          stack.push_back(argument(env, values[i + 1], parameter));
        } catch (const BadCall& error) {
          throw BadCall(op.name + ", " + parameter.name + ": " + error.what());
        }
      } else if (parameter.has_default) {
        stack.push_back(parameter.fallback);
      } else if (parameter.optional) {
        stack.emplace_back();
      } else {
        throw BadCall(op.name + ", " + parameter.name + ": the argument is missing");
      }
    }
    try {
      op.handle.callBoxed(&stack);
    } catch (const c10::Error& error) {
      const std::string text = describe(env, op, values + 1, count - 1) + ": " + error.what_without_backtrace();
      napi_throw_error(env, "TORCH", text.c_str());
      return nullptr;
    } catch (const std::bad_alloc&) {
      const std::string text = describe(env, op, values + 1, count - 1) + ": not enough memory";
      napi_throw_error(env, "MEMORY", text.c_str());
      return nullptr;
    }
    if (stack.size() == 1) return result(env, std::move(stack[0]));
    napi_value out;
    napi_create_array_with_length(env, stack.size(), &out);
    for (size_t i = 0; i < stack.size(); i++) napi_set_element(env, out, i, result(env, std::move(stack[i])));
    return out;
  });
}

/** The element type of a tensor that shares a typed array's memory. */
at::ScalarType scalar_type(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array: return at::kFloat;
    case napi_float64_array: return at::kDouble;
    case napi_int32_array: return at::kInt;
    case napi_uint8_array: return at::kByte;
    case napi_int8_array: return at::kChar;
    case napi_uint16_array: return at::kBFloat16; // the bits of bfloat16 numbers
    default: throw BadCall("a typed array of another element type is expected");
  }
}

/** The largest copy, in bytes, that CUDA stores in its command queue. */
constexpr size_t CARRIED = 64 << 10;

/**
 * fromArray(values, shape, device) → tensor. On the CPU it shares the array's memory, which lives as long as the tensor.
 * On other devices it is an asynchronous copy: the values are read from the array before the call returns, and reach the
 * device after the work that is already queued there.
 */
napi_value from_array(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[3];
    arguments(env, info, values);
    napi_typedarray_type type;
    size_t length;
    void* data;
    check(napi_get_typedarray_info(env, values[0], &type, &length, &data, nullptr, nullptr), "a typed array is expected");
    const auto shape = list<int64_t>(env, values[1], integer);
    const c10::Device device(string(env, values[2]));
    const auto options = at::TensorOptions().dtype(scalar_type(type));
    at::Tensor tensor;
    if (length == 0) {
      tensor = at::empty(shape, options.device(device));
    } else if (device.is_cpu()) {
      napi_ref reference;
      napi_create_reference(env, values[0], 1, &reference);
      tensor = at::from_blob(data, shape, [env, reference](void*) { napi_delete_reference(env, reference); }, options);
    } else if (length == 1) {
      tensor = at::full(shape, at::from_blob(data, {}, options).item(), options.device(device)); // no copy
    } else {
      at::Tensor values = at::from_blob(data, shape, options);
      // CUDA stores a small copy in the command itself. For a larger one it would wait until the queued work is done, unless
      // the values are in pinned memory, which PyTorch keeps until they have been copied.
      if (values.nbytes() > CARRIED) values = values.pin_memory();
      tensor = values.to(device, scalar_type(type), /*non_blocking=*/true);
    }
    napi_value out;
    napi_create_int32(env, keep(std::move(tensor)), &out);
    return out;
  });
}

/** The tensor in the format of a typed array: contiguous, in float32, int32, or bytes (also for booleans). */
at::Tensor readable(const at::Tensor& tensor) {
  at::ScalarType type = tensor.scalar_type();
  if (at::isFloatingType(type)) type = at::kFloat;
  else if (type == at::kBool) type = at::kByte;
  else if (type != at::kByte) type = at::kInt;
  return tensor.to(type).contiguous();
}

napi_value typed_array(napi_env env, const at::Tensor& tensor) {
  void* data;
  napi_value buffer, out;
  check(napi_create_arraybuffer(env, tensor.nbytes(), &data, &buffer), "not enough memory to read a tensor");
  if (tensor.nbytes() > 0) memcpy(data, tensor.data_ptr(), tensor.nbytes());
  const auto type = tensor.scalar_type() == at::kFloat  ? napi_float32_array
                    : tensor.scalar_type() == at::kInt ? napi_int32_array
                                                       : napi_uint8_array;
  napi_create_typedarray(env, type, tensor.numel(), buffer, 0, &out);
  return out;
}

/** read(tensor) → Float32Array, Int32Array or Uint8Array; waits for the device. */
napi_value read(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[1];
    arguments(env, info, values);
    return typed_array(env, readable(tensor(env, values[0])).cpu());
  });
}

struct Reading {
  at::Tensor tensor; // released on the main thread, the only one that may release JavaScript memory
  at::Tensor copy;
  std::unique_ptr<c10::Event> copied; // set if the tensor is not on the CPU
  std::string error;
  napi_deferred deferred;
  napi_async_work work;
};

/** Time between two checks of a copy in progress. */
constexpr std::chrono::microseconds NAP(20);

/**
 * Queues the copy to the CPU on this thread's stream, after the work that computes the tensor: work that is queued later
 * neither delays the copy nor changes its values.
 */
void queue_copy(Reading& reading) {
  const c10::Device device = reading.tensor.device();
  const at::Tensor whole = readable(reading.tensor);
  reading.copy = at::empty(whole.sizes(), whole.options().device(at::kCPU).pinned_memory(true));
  reading.copy.copy_(whole, /*non_blocking=*/true);
  reading.copied = std::make_unique<c10::Event>(device.type());
  reading.copied->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

/** readAsync(tensor) → a promise of what `read` returns; JavaScript continues while the device works. */
napi_value read_async(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[1], promise, name;
    arguments(env, info, values);
    auto made = std::make_unique<Reading>(Reading{tensor(env, values[0])});
    if (!made->tensor.device().is_cpu()) queue_copy(*made);
    Reading* reading = made.release();
    napi_create_promise(env, &reading->deferred, &promise);
    napi_create_string_utf8(env, "read a tensor", NAPI_AUTO_LENGTH, &name);
    const auto execute = [](napi_env, void* data) {
      auto* r = static_cast<Reading*>(data);
      try {
        c10::InferenceMode no_tape;
        if (!r->copied) r->copy = readable(r->tensor);
        else
          while (!r->copied->query()) std::this_thread::sleep_for(NAP);
      } catch (const std::exception& error) {
        r->error = error.what();
      }
    };
    const auto complete = [](napi_env e, napi_status, void* data) {
      auto* r = static_cast<Reading*>(data);
      if (r->error.empty()) {
        napi_resolve_deferred(e, r->deferred, typed_array(e, r->copy));
      } else {
        napi_value message, error;
        napi_create_string_utf8(e, r->error.c_str(), NAPI_AUTO_LENGTH, &message);
        napi_create_error(e, nullptr, message, &error);
        napi_reject_deferred(e, r->deferred, error);
      }
      napi_delete_async_work(e, r->work);
      delete r;
    };
    napi_create_async_work(env, nullptr, name, execute, complete, reading, &reading->work);
    napi_queue_async_work(env, reading->work);
    return promise;
  });
}

/** free(tensor): releases its memory at once. */
napi_value release(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value values[1];
    arguments(env, info, values);
    tensor(env, values[0]) = at::Tensor();
    freed.push_back(static_cast<int32_t>(integer(env, values[0])));
    return nullptr;
  });
}

/** shape(tensor) → array of sizes */
napi_value shape(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    napi_value values[1], out;
    arguments(env, info, values);
    const auto sizes = tensor(env, values[0]).sizes();
    napi_create_array_with_length(env, sizes.size(), &out);
    for (size_t i = 0; i < sizes.size(); i++) {
      napi_value size;
      napi_create_int64(env, sizes[i], &size);
      napi_set_element(env, out, i, size);
    }
    return out;
  });
}

/** setThreads(n): how many processor cores one operation uses. */
napi_value set_threads(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value values[1];
    arguments(env, info, values);
    at::set_num_threads(static_cast<int>(integer(env, values[0])));
    return nullptr;
  });
}

/** cudaDevices() → the number of CUDA devices; 0 if PyTorch is built without CUDA. */
napi_value cuda_devices(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    napi_value out;
    napi_create_int32(env, at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0, &out);
    return out;
  });
}

/** allowTF32(allowed): whether CUDA may multiply float32 numbers with 10 bits of mantissa. */
napi_value allow_tf32(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value values[1];
    arguments(env, info, values);
    const bool allowed = boolean(env, values[0]);
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
    return nullptr;
  });
}

/** deterministic(wanted): whether CUDA may only use algorithms that add up in the same order each time. */
napi_value deterministic(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value values[1];
    arguments(env, info, values);
    const bool wanted = boolean(env, values[0]);
    at::globalContext().setDeterministicAlgorithms(wanted, /*warn_only=*/true); // a few operators have no such algorithm
    at::globalContext().setDeterministicCuDNN(wanted);
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 2)
    at::globalContext().setDeterministicFillUninitializedMemory(false); // everything that is read was written
#endif
    return nullptr;
  });
}

/** The version that the loaded library reports, which may differ from that of the headers. */
std::string runtime_version() {
  const std::string config = at::show_config(), key = "TORCH_VERSION=";
  const size_t at = config.find(key);
  if (at == std::string::npos) return TORCH_VERSION;
  return config.substr(at + key.size(), config.find(',', at) - at - key.size());
}

/** count() → the number of tensors that are alive on the C++ side. */
napi_value count(napi_env env, napi_callback_info) {
  napi_value out;
  napi_create_uint32(env, tensors.size() - freed.size(), &out);
  return out;
}

napi_value initialize(napi_env env, napi_value exports) {
  const std::pair<const char*, napi_callback> functions[] = {
      {"find", find}, {"schema", schema}, {"call", call},   {"fromArray", from_array}, {"read", read},
      {"readAsync", read_async}, {"free", release}, {"shape", shape},          {"setThreads", set_threads},
      {"cudaDevices", cuda_devices}, {"allowTF32", allow_tf32}, {"deterministic", deterministic}, {"count", count},
  };
  for (const auto& [name, function] : functions) {
    napi_value value;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, function, nullptr, &value);
    napi_set_named_property(env, exports, name, value);
  }
  napi_value version;
  napi_create_string_utf8(env, TORCH_VERSION, NAPI_AUTO_LENGTH, &version);
  napi_set_named_property(env, exports, "version", version);
  napi_create_string_utf8(env, runtime_version().c_str(), NAPI_AUTO_LENGTH, &version);
  napi_set_named_property(env, exports, "runtimeVersion", version);
  return exports;
}

}  // namespace

NAPI_MODULE(alitok_bridge, initialize)
