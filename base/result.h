// Result<T>: a value or an Error, with the names of C++23's std::expected.
//
//   Result<Header> read_header(int fd);
//   AIRLLM_TRY(Header header, read_header(fd));   // returns the error to the caller
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/error.h"

namespace airllm {

// Wraps an Error so that `return Unexpected(...)` converts to any Result<T>.
class Unexpected {
 public:
  explicit Unexpected(Error error) : error_(std::move(error)) {}
  Unexpected(ErrorCode code, std::string message, std::string remedy = {})
      : error_{code, std::move(message), std::move(remedy)} {}
  Error& error() { return error_; }

 private:
  Error error_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  template <typename U = T,
            typename = std::enable_if_t<std::is_constructible_v<T, U&&> &&
                                        !std::is_same_v<std::decay_t<U>, Result> &&
                                        !std::is_same_v<std::decay_t<U>, Unexpected>>>
  Result(U&& value) : state_(std::in_place_index<0>, std::forward<U>(value)) {}  // NOLINT
  Result(Unexpected unexpected)                                                  // NOLINT
      : state_(std::in_place_index<1>, std::move(unexpected.error())) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    AIRLLM_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    AIRLLM_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    AIRLLM_CHECK(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  Error& error() & {
    AIRLLM_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }
  const Error& error() const& {
    AIRLLM_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    AIRLLM_CHECK(!has_value());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> : private Result<std::monostate> {
  using Base = Result<std::monostate>;

 public:
  Result() : Base(std::monostate{}) {}
  Result(Unexpected unexpected) : Base(std::move(unexpected)) {}  // NOLINT
  using Base::error;
  using Base::has_value;
  using Base::operator bool;
  void value() const { AIRLLM_CHECK(has_value()); }
};

using Status = Result<void>;

// `result`, whose error gets `remedy` if it has none.
template <typename T>
Result<T> with_remedy(Result<T> result, std::string_view remedy) {
  if (!result.has_value() && result.error().remedy.empty()) result.error().remedy = remedy;
  return result;
}

}  // namespace airllm

#define AIRLLM_CONCAT_INNER(a, b) a##b
#define AIRLLM_CONCAT(a, b) AIRLLM_CONCAT_INNER(a, b)

// Declares `declaration` with the value of `expression`, or returns its error.
#define AIRLLM_TRY(declaration, expression) \
  AIRLLM_TRY_INNER(AIRLLM_CONCAT(airllm_try_, __LINE__), declaration, expression)
#define AIRLLM_TRY_INNER(temporary, declaration, expression)                             \
  auto temporary = (expression);                                                         \
  if (!temporary.has_value()) return ::airllm::Unexpected(std::move(temporary).error()); \
  declaration = std::move(temporary).value()

// Returns the error of `expression` (a Status), if it has one.
#define AIRLLM_TRY_VOID(expression)                                              \
  do {                                                                           \
    if (auto airllm_try_status = (expression); !airllm_try_status.has_value()) { \
      return ::airllm::Unexpected(std::move(airllm_try_status).error());         \
    }                                                                            \
  } while (false)
