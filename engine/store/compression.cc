#include "engine/store/compression.h"

#include <array>
#include <charconv>
#include <cmath>
#include <variant>

#include "base/check.h"
#include "base/utf8.h"

namespace airllm::store {
namespace {

constexpr std::string_view kKeep = "keep";
constexpr std::string_view kValues = ",values=";
constexpr std::string_view kOutliers = ",outliers=";
constexpr double kMostOutliers = 0.5;
constexpr size_t kLongestShown = 40;

using kernels::NumberFormat;

std::string_view name_of(const std::optional<NumberFormat>& format) {
  return format ? std::string_view(kernels::number_format_name(*format)) : kKeep;
}

Unexpected unknown(std::string_view text) {
  return Unexpected(
      ErrorCode::kUsage,
      "'" + escape_for_display(text.substr(0, kLongestShown), true) +
          "' names no format of weights",
      "give q8, q4, nf4, fp8 or keep, for embedding and head another one behind a comma (q8 "
      "without one): 'q4' is 'q4,q8'");
}

// Returns whether `name` is one.
bool read_format(std::string_view name, std::optional<NumberFormat>& out) {
  out = compressed_format(name);
  return out || name == kKeep;
}

Result<double> read_outliers(std::string_view text) {
  double fraction = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fraction);
  if (error == std::errc() && end == text.data() + text.size() && fraction > 0 &&
      fraction <= kMostOutliers) {
    return fraction;
  }
  return Unexpected(
      ErrorCode::kUsage,
      "'" + escape_for_display(text.substr(0, kLongestShown), true) + "' is no share of outliers",
      "give a number above 0 and not above 0.5, such as 0.01");
}

// Takes what is behind `key` off the text; none: it has no such part.
std::optional<std::string_view> take_option(std::string_view& text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view option = text.substr(at + key.size());
  text = text.substr(0, at);
  return option;
}

// Where rows of keys and values are for several heads each, the tensor that makes values alone;
// none: there is no such.
std::optional<size_t> shared_values(const model::StageSpec& stage) {
  const model::Step* values = nullptr;
  uint64_t q_width = 0;
  for (const model::Step& step : stage.steps) {
    const auto* const product = std::get_if<model::step::Product>(&step.what);
    if (product == nullptr || product->to.buffer != model::Buffer::kQkv) continue;
    if (product->to.offset == 0) q_width = product->to.width;
    // Queries, keys, values.
    if (product->to.offset > q_width) values = &step;
  }
  if (values == nullptr) return std::nullopt;
  const uint64_t width = std::get<model::step::Product>(values->what).to.width;
  return 2 * width <= q_width ? std::optional(values->tensor) : std::nullopt;
}

// Whether the step's tensor is one to compress.
bool is_compressible(const model::Step& step) {
  if (const auto* lookup = std::get_if<model::step::Lookup>(&step.what)) {
    return !lookup->by_position;
  }
  const auto* const product = std::get_if<model::step::Product>(&step.what);
  return product != nullptr && product->to.buffer != model::Buffer::kRouter &&
         product->to.buffer != model::Buffer::kSharedGate;
}

}  // namespace

Result<Compression> parse_compression(std::string_view text) {
  Compression out;
  if (text.empty()) return out;
  const std::string_view whole = text;
  if (const auto outliers = take_option(text, kOutliers)) {
    AIRLLM_TRY(out.outliers, read_outliers(*outliers));
  }
  if (const auto values = take_option(text, kValues)) {
    out.values = compressed_format(*values);
    if (!out.values) return unknown(whole);
  }
  const size_t comma = text.find(',');
  if (!read_format(text.substr(0, comma), out.weights)) return unknown(text);
  out.ends = out.weights ? std::optional(NumberFormat::kQ8) : std::nullopt;
  if (comma != std::string_view::npos && !read_format(text.substr(comma + 1), out.ends)) {
    return unknown(text);
  }
  if ((out.outliers > 0 || out.values) && !out.weights) {
    return Unexpected(ErrorCode::kUsage,
                      "outliers and values are parts of weights that are compressed",
                      "name a format of the layers' weights, such as q4, or leave them out");
  }
  return out;
}

std::string compression_text(const Compression& compression) {
  if (compression.is_none() && !compression.keeps_packed) return "";
  std::string text =
      std::string(name_of(compression.weights)) + "," + std::string(name_of(compression.ends));
  if (compression.values) text.append(kValues).append(name_of(compression.values));
  if (compression.outliers == 0) return text;
  std::array<char, 32> digits;  // more than the shortest text of any double takes
  const auto [end, error] =
      std::to_chars(digits.data(), digits.data() + digits.size(), compression.outliers);
  AIRLLM_CHECK(error == std::errc());
  return text.append(kOutliers).append(digits.data(), end);
}

size_t outlier_count(const Compression& compression, uint64_t inputs) {
  return static_cast<size_t>(std::ceil(compression.outliers * static_cast<double>(inputs)));
}

Result<Compression> read_compression_text(std::string_view text) {
  AIRLLM_TRY(Compression out, parse_compression(text));
  out.keeps_packed = out.is_none() && !text.empty();
  return out;
}

std::optional<NumberFormat> compressed_format(std::string_view name) {
  for (const NumberFormat format : kernels::kAllFormats) {
    if (kernels::is_compressed(format) && name == kernels::number_format_name(format)) {
      return format;
    }
  }
  return std::nullopt;
}

std::vector<bool> compressible(const model::StageSpec& stage) {
  std::vector<bool> out(stage.tensors.size());
  for (const model::Step& step : stage.steps) {
    const bool is_own = step.tensor < out.size();  // not another stage's
    if (is_own && is_compressible(step) && stage.tensors[step.tensor].shape.size() == 2) {
      out[step.tensor] = true;
    }
  }
  return out;
}

std::vector<NumberFormat> stored_formats(const Compression& compression,
                                         const model::StageSpec& stage,
                                         const std::vector<NumberFormat>& formats) {
  std::vector<NumberFormat> out = formats;
  const bool is_layer = stage.kind == model::StageSpec::Kind::kLayer;
  const auto& wanted = is_layer ? compression.weights : compression.ends;
  if (!wanted) return out;
  const std::vector<bool> may_be = compressible(stage);
  for (size_t i = 0; i < out.size(); ++i) {
    if (may_be[i]) out[i] = *wanted;
  }
  if (is_layer && compression.values) {
    const std::optional<size_t> values = shared_values(stage);
    if (values && may_be[*values]) out[*values] = *compression.values;
  }
  return out;
}

}  // namespace airllm::store
