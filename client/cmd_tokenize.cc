#include <limits>
#include <string_view>

#include "base/json.h"
#include "client/command.h"
#include "client/output.h"
#include "client/spool.h"
#include "client/table.h"
#include "client/text_call.h"

namespace airllm::client {
namespace {

enum class Show { kIds, kPieces, kCount, kAll };

// A piece on a line of its own: what would end or hide the line is written as in JSON.
std::string piece_line(std::string_view piece) {
  std::string line;
  for (const char c : piece) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') {
      const std::string quoted = Json(std::string(1, c)).dump(-1, ' ', c == 0x7f);
      line += std::string_view(quoted).substr(1, quoted.size() - 2);
    } else {
      line += c;
    }
  }
  return line + '\n';
}

Result<uint64_t> count_of(const protocol::Done& done) {
  AIRLLM_TRY(const Json result, parse_result(done.result_json));
  const auto found = result.find("count");
  if (!result.is_object() || found == result.end() || !found->is_number_unsigned()) {
    return Unexpected(unexpected_event().error());
  }
  return found->get<uint64_t>();
}

// Ids on one line, pieces on a line each, or their count.
class TokenPrinter : public EventHandler {
 public:
  explicit TokenPrinter(Show show) : show_(show) {}

  bool has_begun() const override { return begun_; }
  Status on_tokens(const protocol::Tokens& tokens) override {
    std::string text;
    if (show_ == Show::kPieces) {
      for (const std::string& piece : tokens.pieces) text += piece_line(piece);
    } else {
      for (const int32_t id : tokens.ids) {
        if (begun_ || !text.empty()) text += ' ';
        text += std::to_string(id);
      }
    }
    begun_ = true;
    return print_out(shown_on_stdout(text));
  }
  Status on_done(const protocol::Done& done) override {
    if (show_ == Show::kPieces) return {};
    if (show_ == Show::kIds) return print_out("\n");
    AIRLLM_TRY(const uint64_t count, count_of(done));
    return print_out(std::to_string(count) + "\n");
  }

 private:
  const Show show_;
  bool begun_ = false;
};

// {"model","count"}, and "ids" and "pieces" as wanted.
class TokenJsonPrinter : public EventHandler {
 public:
  explicit TokenJsonPrinter(Show show) : show_(show) {}

  bool has_begun() const override { return begun_; }
  Status on_accepted(const protocol::Accepted& accepted) override {
    model_ = accepted.model;
    return {};
  }
  Status on_tokens(const protocol::Tokens& tokens) override {
    std::string ids;
    std::string pieces;
    for (const int32_t id : tokens.ids)
      ids += (begun_ || !ids.empty() ? "," : "") + std::to_string(id);
    for (const std::string& piece : tokens.pieces) {
      pieces += (begun_ || !pieces.empty() ? "," : "") + json_for_stdout(piece);
    }
    begun_ = true;
    AIRLLM_TRY_VOID(ids_.append(ids));
    return pieces_.append(pieces);
  }
  Status on_done(const protocol::Done& done) override {
    AIRLLM_TRY(const uint64_t count, count_of(done));
    AIRLLM_TRY_VOID(
        print_out("{\"model\":" + json_for_stdout(model_) + ",\"count\":" + std::to_string(count)));
    if (show_ != Show::kCount) AIRLLM_TRY_VOID(print_list("ids", ids_));
    if (show_ == Show::kPieces || show_ == Show::kAll) {
      AIRLLM_TRY_VOID(print_list("pieces", pieces_));
    }
    return print_out("}\n");
  }

 private:
  static Status print_list(const std::string& key, Spool& spool) {
    AIRLLM_TRY_VOID(print_out(",\"" + key + "\":["));
    AIRLLM_TRY_VOID(spool.print(false));
    return print_out("]");
  }

  const Show show_;
  bool begun_ = false;
  std::string model_;
  Spool ids_, pieces_;
};

Result<Show> what_to_show(bool ids, bool pieces, bool count, bool json) {
  if (int{ids} + int{pieces} + int{count} > 1) {
    return Unexpected(ErrorCode::kUsage, "--ids, --pieces and --count exclude each other",
                      "see 'airllm tokenize --help'");
  }
  if (pieces) return Show::kPieces;
  if (count) return Show::kCount;
  return json && !ids ? Show::kAll : Show::kIds;
}

}  // namespace

Result<int> run_tokenize(const Invocation& invocation) {
  TextCall call;
  call.globals = invocation.globals;
  protocol::TokenizeParams params;
  bool ids = false;
  bool pieces = false;
  bool count = false;
  ArgParser parser("airllm tokenize", "Show the tokens that a model sees of a text.");
  parser.usage("airllm tokenize [OPTIONS] [TEXT...]");
  add_text_options(parser, call, "TEXT", std::numeric_limits<size_t>::max(),
                   "The text, its words joined by a space; without any, standard input, exactly");
  parser.flag("--ids", ids, "Print the ids, a space between them (the default)");
  parser.flag("--pieces", pieces, "Print the tokens as the vocabulary writes them, one on a line");
  parser.flag("--count", count, "Print how many tokens there are");
  parser.flag("--special", params.special, "Take texts such as <s> for the tokens of that name");
  parser.flag("--no-add-special", params.no_add_special,
              "Without the tokens that the tokenizer adds to a text, such as <s>");
  AIRLLM_TRY(const bool go, parser.parse(invocation));
  if (!go) return 0;
  AIRLLM_TRY(const Show show, what_to_show(ids, pieces, count, call.globals.json));
  AIRLLM_TRY_VOID(read_text_call(call, "tokenize"));
  params.text = std::move(call.input);
  params.model = call.model_name();
  params.count_only = show == Show::kCount;
  params.pieces = show == Show::kPieces || show == Show::kAll;
  TokenPrinter text_printer(show);
  TokenJsonPrinter json_printer(show);
  EventHandler* const printer =
      call.globals.json ? static_cast<EventHandler*>(&json_printer) : &text_printer;
  AIRLLM_TRY_VOID(run_text_call(call, params, *printer));
  return 0;
}

}  // namespace airllm::client
