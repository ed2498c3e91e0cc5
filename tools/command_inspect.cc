// godwit inspect: what a file of device state, or a capture, holds.

#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "engine/capture_inspect.h"
#include "tools/commands.h"
#include "tools/report.h"
#include "tools/session_runner.h"
#include "vfio/stream_format.h"

namespace godwit {
namespace {

using nlohmann::json;

constexpr size_t kPieceBytes = 1 << 20;

// One line of text and one element of the JSON's "records" for each thing that is found. Both go
// out at once: a file may have more records than memory.
class Listing {
 public:
  Listing(JsonOutput& output, std::FILE* text) : output_(output), text_(text) {}

  void Head(const std::string& file, absl::string_view format, const std::string& about) {
    Print(absl::StrCat(OneLine(file), ": ", about, "\n"));
    begun_ = true;
    Write(absl::StrCat("{\"file\": ", Dump(file), ", \"format\": ", Dump(std::string(format)),
                       ", \"records\": ["));
  }
  void Row(const std::string& line, const json& row, bool problem) {
    if (problem) ++problems_;
    ++rows_;
    Print(OneLine(line) + "\n");
    Write((rows_ == 1 ? "\n" : ",\n") + Dump(row));
  }
  void Problem(absl::string_view what) {
    ++problems_;
    Print(absl::StrCat("  ! ", OneLine(what), "\n"));
  }
  void Print(const std::string& text) {
    if (std::fputs(text.c_str(), text_) < 0) text_failed_ = true;
  }
  // The JSON's other fields.
  absl::Status End(json summary) {
    summary["problems"] = problems_;
    const std::string rest = Dump(summary);  // "{…}"
    Write(absl::StrCat("\n], ", rest.substr(1), "\n"));
    if (json_status_.ok()) json_status_ = output_.Close();
    return json_status_;
  }

  uint64_t problems() const { return problems_; }
  bool begun() const { return begun_; }
  // Nobody reads the text any more, as after `| head`.
  bool text_failed() const { return text_failed_; }

 private:
  // Names come from files: bytes that are no UTF-8 must not throw.
  static std::string Dump(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  void Write(const std::string& text) {
    if (json_status_.ok()) json_status_ = output_.Append(text);
  }

  JsonOutput& output_;
  std::FILE* const text_;
  absl::Status json_status_;
  bool text_failed_ = false;
  bool begun_ = false;
  uint64_t rows_ = 0;
  uint64_t problems_ = 0;
};

std::string SpacedHex(absl::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    absl::StrAppendFormat(&text, "%s%02x", text.empty() ? "" : " ", static_cast<uint8_t>(c));
  }
  return text;
}

// Lists the records of one device's stream; `device` where it lies in a capture.
class RecordLister final : public StreamSink {
 public:
  RecordLister(Listing& listing, std::optional<size_t> device)
      : listing_(listing), device_(device) {}

  void OnRecord(const StreamRecord& record) override {
    const std::string margin =
        device_.has_value() ? absl::StrCat("    device ", *device_, " ") : std::string();
    std::string line = absl::StrFormat("%s%s%12u  %s %u", margin, record.depth > 0 ? "  " : "",
                                       record.offset, record.kind, record.index);
    json row = {{"kind", std::string(record.kind)},
                {"index", record.index},
                {"depth", record.depth},
                {"offset", record.offset},
                {"bytes", record.payload_bytes},
                {"header_bytes", record.header_bytes}};
    if (device_.has_value()) row["device"] = *device_;
    for (const StreamField& field : record.fields) {
      row["fields"][std::string(field.name)] = field.value;
      const std::string value =
          field.hex ? absl::StrFormat("0x%x", field.value) : absl::StrCat(field.value);
      absl::StrAppend(&line, " ", field.name, "=", value);
    }
    if (record.fields.empty()) absl::StrAppend(&line, " bytes=", record.payload_bytes);
    if (!record.name.empty()) {
      row["name"] = record.name;
      absl::StrAppend(&line, "  ", record.name);
    } else if (!record.first_bytes.empty() && record.kind != "padding") {
      absl::StrAppend(&line, "  ", SpacedHex(record.first_bytes),
                      record.payload_bytes > record.first_bytes.size() ? " …" : "");
    }
    if (!record.first_bytes.empty()) {
      row["first_bytes"] = absl::BytesToHexString(record.first_bytes);
    }
    if (!record.problem.empty()) {
      row["problem"] = record.problem;
      absl::StrAppend(&line, "  ! ", record.problem);
    }
    listing_.Row(line, row, !record.problem.empty());
    ++records_;
  }
  uint64_t records() const { return records_; }

 private:
  Listing& listing_;
  const std::optional<size_t> device_;
  uint64_t records_ = 0;
};

class PacketLister final : public InspectSink {
 public:
  // `format` is that of the devices' streams: each is recognised by its first packet where it is
  // none.
  PacketLister(Listing& listing, size_t devices, bool records, std::optional<StreamFormat> format)
      : listing_(listing), records_(records), format_(format), streams_(devices) {}

  void OnPacket(const InspectedPacket& packet, absl::Span<const std::byte> payload) override {
    json row = {{"kind", "packet"},
                {"record", packet.record},
                {"file_offset", packet.file_offset},
                {"bytes", packet.payload_bytes},
                {"header_ok", packet.header_ok},
                {"crc_ok", packet.payload_ok}};
    std::string line = absl::StrFormat("%12u  record %u", packet.file_offset, packet.record);
    if (packet.header_ok) {
      const PacketHeader& header = packet.header;
      row["device"] = header.device;
      row["index"] = header.index;
      row["stream_offset"] = header.stream_offset;
      row["flags"] = header.flags;
      absl::StrAppendFormat(&line, " device=%u index=%u offset=%u bytes=%u flags=0x%x crc=%s%s",
                            header.device, header.index, header.stream_offset, packet.payload_bytes,
                            header.flags, packet.payload_ok ? "ok" : "bad",
                            header.is_config() ? "  CONFIG_STATE" : "");
    } else {
      absl::StrAppendFormat(&line, " bytes=%u header=bad", packet.payload_bytes);
    }
    if (!packet.problem.empty()) {
      row["problem"] = packet.problem;
      absl::StrAppend(&line, "  ! ", packet.problem);
    }
    listing_.Row(line, row, !packet.problem.empty());
    if (records_ && packet.problem.empty()) Feed(packet, payload);
  }

  // The streams' last records.
  void Finish() {
    for (Stream& stream : streams_) {
      if (stream.parser != nullptr && !stream.finished) stream.parser->Finish();
    }
  }
  absl::string_view format(size_t device) const { return streams_[device].format; }

 private:
  struct Stream {
    std::unique_ptr<RecordLister> lister;
    std::unique_ptr<StreamParser> parser;
    absl::string_view format;
    bool finished = false;
  };

  void Feed(const InspectedPacket& packet, absl::Span<const std::byte> payload) {
    Stream& stream = streams_[packet.header.device];
    if (packet.header.is_config()) {
      if (stream.parser != nullptr) stream.parser->Finish();
      stream.finished = true;
      return;
    }
    if (stream.parser == nullptr) {
      const StreamFormat format =
          format_.value_or(RecogniseStream(payload).value_or(StreamFormat::kRaw));
      stream.format = StreamFormatName(format);
      stream.lister = std::make_unique<RecordLister>(listing_, packet.header.device);
      stream.parser = StreamParser::Make(format, *stream.lister);
    }
    stream.parser->Feed(payload);
  }

  Listing& listing_;
  const bool records_;
  const std::optional<StreamFormat> format_;
  std::vector<Stream> streams_;
};

// What is in the table, and what came.
void ListDevice(size_t number, const CaptureDevice& row, const InspectedDevice& found,
                absl::string_view format, Listing& listing, json& summary) {
  json device = {{"name", row.name},
                 {"kind", row.kind},
                 {"flags", MigrationFlagsName(row.flags)},
                 {"bytes", found.bytes},
                 {"packets", found.packets},
                 {"bad_packets", found.bad_packets},
                 {"config_bytes", found.config_bytes},
                 {"crc32c", absl::StrFormat("%08x", found.stream_crc)},
                 {"complete", found.complete}};
  if (!format.empty()) device["format"] = std::string(format);
  summary["devices"].push_back(std::move(device));
  listing.Print(OneLine(absl::StrFormat("device %u  %s (%s; %s): %s in %u packets, digest %08x, %s",
                                        number, row.name, row.kind, MigrationFlagsName(row.flags),
                                        FormatBytes(found.bytes), found.packets, found.stream_crc,
                                        found.complete ? "complete" : "not complete")) +
                "\n");
  if (!found.complete && found.bad_packets == 0) {
    listing.Problem(absl::StrCat("the config packet of device ", number, " is not there"));
  }
}

absl::Status InspectCaptureFile(const InspectCommand& command, std::optional<StreamFormat> format,
                                Listing& listing, json& summary) {
  const auto opened = CaptureReader::Open(command.file);
  // What is wrong in the file is no wrong usage.
  if (!opened.ok()) return absl::DataLossError(opened.status().message());
  CaptureReader& reader = **opened;
  const std::vector<CaptureDevice>& table = reader.header().devices;
  listing.Head(command.file, "capture",
               absl::StrFormat("capture of %u device%s, packets of at most %u bytes", table.size(),
                               table.size() == 1 ? "" : "s", reader.header().packet_bytes));
  summary["packet_bytes"] = reader.header().packet_bytes;
  summary["devices"] = json::array();
  PacketLister lister(listing, table.size(), command.records, format);
  std::vector<InspectedDevice> found;
  const absl::Status whole = InspectCapture(reader, lister, found);
  lister.Finish();
  for (size_t i = 0; i < table.size(); ++i) {
    ListDevice(i, table[i], found[i], lister.format(i), listing, summary);
  }
  summary["whole"] = whole.ok();
  if (!whole.ok()) {
    summary["error"] = std::string(whole.message());
    listing.Problem(whole.message());
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> ReadPiece(int fd, std::vector<std::byte>& piece) {
  size_t done = 0;
  while (done < piece.size()) {
    const ssize_t got = ::read(fd, piece.data() + done, piece.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "reading failed");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

absl::Status InspectStreamFile(const InspectCommand& command, std::optional<StreamFormat> format,
                               int fd, Listing& listing, json& summary) {
  std::vector<std::byte> piece(kPieceBytes);
  GODWIT_ASSIGN_OR_RETURN(size_t got, ReadPiece(fd, piece));
  const bool told = format.has_value();
  if (!told) format = RecogniseStream(absl::MakeConstSpan(piece).first(got));
  const absl::string_view name = StreamFormatName(format.value_or(StreamFormat::kRaw));
  listing.Head(command.file, name,
               format.has_value() ? absl::StrCat(told ? "read as " : "looks like ", name)
                                  : std::string("of no known form"));
  RecordLister lister(listing, std::nullopt);
  const auto parser = StreamParser::Make(format.value_or(StreamFormat::kRaw), lister);
  uint64_t bytes = 0;
  while (got > 0 && !listing.text_failed()) {
    bytes += got;
    parser->Feed(absl::MakeConstSpan(piece).first(got));
    GODWIT_ASSIGN_OR_RETURN(got, ReadPiece(fd, piece));
  }
  parser->Finish();
  listing.Print(absl::StrFormat("%u bytes, %u records\n", bytes, lister.records()));
  summary["bytes"] = bytes;
  summary["recognised"] = !told && format.has_value();
  return absl::OkStatus();
}

absl::Status Inspect(const InspectCommand& command, Listing& listing, json& summary) {
  std::optional<StreamFormat> format;
  bool capture = command.as == "capture";
  if (!command.as.empty() && !capture) {
    GODWIT_ASSIGN_OR_RETURN(format, ParseStreamFormat(command.as));
  }
  // Captures are read by name, so only a regular file is looked into to see whether it is one.
  const UniqueFd file(::open(command.file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info = {};
  if (!file.valid() || ::fstat(file.get(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat(command.file, ": it can't be read"));
  }
  if (S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(command.file, " is a directory"));
  }
  if (S_ISREG(info.st_mode)) {
    std::string magic(kCaptureMagic.size(), '\0');
    const ssize_t got = ::pread(file.get(), magic.data(), magic.size(), 0);
    const bool is_capture = got == static_cast<ssize_t>(magic.size()) && magic == kCaptureMagic;
    capture = capture || (is_capture && (command.as.empty() || command.records));
  }
  if (capture) return InspectCaptureFile(command, format, listing, summary);
  return Annotate(InspectStreamFile(command, format, file.get(), listing, summary), command.file);
}

}  // namespace

ExitCode RunInspect(const InspectCommand& command) {
  auto output = JsonOutput::Open(command.json);
  if (!output.ok()) return Refuse(output.status());
  Listing listing(*output, output->text_stream());
  json summary = json::object();
  const absl::Status inspected = Inspect(command, listing, summary);
  if (!inspected.ok() && !listing.begun()) return Refuse(inspected, &*output);
  if (!inspected.ok()) {
    summary["error"] = std::string(inspected.message());
    listing.Problem(inspected.message());
  }
  const absl::Status written = listing.End(std::move(summary));
  if (!written.ok()) {
    LogError(written);
    return kExitFailed;
  }
  if (listing.problems() == 0) return kExitDone;
  spdlog::error("{}: {} problem{}, each marked ! in the list", OneLine(command.file),
                listing.problems(), listing.problems() == 1 ? "" : "s");
  return kExitFailed;
}

}  // namespace godwit
