#include "client/new_model.h"

#include "base/json.h"
#include "client/model_setting.h"
#include "client/table.h"

namespace airllm::client {

void NewModelOptions::add_to(ArgParser& parser, const char* name_help) {
  parser.text("--name", name, "NAME", name_help);
  parser.integer("--bits", bits, 4,
                 "Compress the weights to 8 or to 4 bits each; --format says more exactly how");
  parser.text("--format", format, "W[,E][,values=V]",
              "Store the layers' weights as W and embedding and head as E (q8): q8, q4, nf4, fp8 "
              "or keep; behind it ,values=V: value projections that several heads share as V");
  parser.text(
      "--outliers", outliers, "FRACTION",
      "Besides keep this share of each layer's inputs, those whose weights vary most, in 16 "
      "bits, such as 0.01");
  parser.flag("--allow-nonfinite", allow_nonfinite,
              "Keep weights that are infinite or NaN, which are refused otherwise");
  parser.flag("--share", share, "Let all users see it; without it only you do");
}

Status NewModelOptions::check() const {
  if (name) AIRLLM_TRY_VOID(check_model_name(*name));
  if (bits && *bits != 8 && *bits != 4) {
    return Unexpected(ErrorCode::kUsage,
                      "--bits " + std::to_string(*bits) + ": weights have 8 or 4 bits",
                      "give --bits 8 or --bits 4");
  }
  if (bits && format) {
    return Unexpected(ErrorCode::kUsage, "--bits and --format exclude each other",
                      "give one of the two");
  }
  if (outliers && !is_compressed()) {
    return Unexpected(ErrorCode::kUsage,
                      "--outliers keeps something of weights that are compressed",
                      "give --bits or --format, too");
  }
  return {};
}

void NewModelOptions::fill(protocol::SplitParams& params) const {
  if (name) params.name = *name;
  // Shared values in 4 bits would be the worst part of a model by far, and are few.
  if (bits) params.format = *bits == 8 ? "q8" : "q4,q8,values=q8";
  if (format) params.format = *format;
  if (outliers) params.format += ",outliers=" + *outliers;
  params.allow_nonfinite = allow_nonfinite;
  params.share = share;
}

std::string new_model_summary(const Json& result) {
  const bool unchanged = result.is_object() && result.value("unchanged", Json()) == Json(true);
  const std::string name = cell(result, "name");
  // Of a removal that went on there is all that `show` tells.
  const bool is_list = result.is_object() && result.value("shards", Json()).is_array();
  const std::string shards =
      is_list ? std::to_string(result.at("shards").size()) : cell(result, "shards");
  const bool in_place = result.is_object() && result.value("in_place", Json()) == Json(true);
  std::string text = name + ": " + shards + (in_place ? " indexes, " : " shards, ") +
                     cell(result, "bytes") + (unchanged ? ", already there\n" : "\n");
  if (in_place) {
    text += cell(result, "elsewhere_bytes") + " of weights are read where they lie.\n";
    if (result.value("opens_originals", Json()) != Json(true)) {
      text +=
          "The service may not open them itself: your airllm passes them when you ask. Others, "
          "if you share it, can ask once you have, until the service starts again.\n";
    }
  }
  if (result.is_object() && result.contains("freed_bytes")) {
    text += "The original's weights are removed: " + cell(result, "deleted_files") + " files, " +
            cell(result, "freed_bytes") + " freed.\n";
  }
  if (!result.is_object() || result.value("shared", Json(true)) == Json(true)) return text;
  return text + "Only you see it; for all users: airllm share " + name + "\n";
}

}  // namespace airllm::client
