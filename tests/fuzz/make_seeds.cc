// Writes the seeds of the fuzz targets' corpora: frames, messages, sessions, streams,
// configurations and captures as they are when all is right, for a fuzzer to start from.
//
//   make_fuzz_seeds CORPUS           writes them to CORPUS/TARGET/seed-NAME
//   make_fuzz_seeds --check CORPUS   says which of them is not there, or is another
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <string>

#include "engine/capture_format.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/wire_image.h"
#include "tests/fuzz/handshake_steps.h"
#include "tests/fuzz/sealed_frame.h"
#include "tests/vfio/stream_images.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "vfio/pci_config.h"
#include "vfio/soft_framing.h"

namespace godwit::fuzz {
namespace {

using control::ControlMessage;

// By "TARGET/NAME".
using Seeds = std::map<std::string, std::string>;

const std::string kSessionId = "0123456789abcdef";

std::string Byte(size_t value) { return std::string(1, static_cast<char>(value)); }

// ---- Frames.

std::string FrameStep(uint8_t seals, const wire::Frame& frame) {
  std::string bytes = wire::Encode(frame);
  return Byte(seals) + bytes.substr(0, wire::kHeaderBytes) + Byte(frame.payload.size()) +
         frame.payload;
}

void AddFrames(Seeds& seeds) {
  const std::vector<wire::Frame> frames = TheFrames();
  constexpr uint8_t kTakeOut = 3;
  constexpr uint8_t kAll = kSealHeader | kSealLength | kSealPayload | kSealPlace | kSealForm;
  std::string in_order;
  std::string backwards;
  for (size_t i = 0; i < frames.size(); ++i) {
    in_order += FrameStep(0, frames[i]) + Byte(kTakeOut);
    backwards += FrameStep(kAll, frames[frames.size() - 1 - i]);
    seeds["frame/seed-alone-" + std::to_string(i)] = FrameStep(0, frames[i]);
  }
  seeds["frame/seed-in-order"] = in_order;
  seeds["frame/seed-backwards"] = backwards + std::string(frames.size(), kTakeOut);
  seeds["frame/seed-again"] = FrameStep(kAll, frames[0]) + FrameStep(kAll, frames[0]);
  std::string past_the_window;
  for (const uint32_t index : {7U, 8U, 0U, 0xfffffffeU, 0xffffffffU}) {
    past_the_window += FrameStep(kAll, wire::DataFrame(1, index, "before", "data"));
  }
  seeds["frame/seed-past-the-window"] = past_the_window;
  for (const size_t at : {size_t{75}, wire::kHeaderBytes}) {  // its index, its payload
    std::string bytes = wire::Encode(frames[0]);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    wire::Frame damaged = wire::Decode(bytes);
    damaged.payload_bytes = static_cast<uint32_t>(damaged.payload.size());
    damaged.header_crc = static_cast<uint32_t>(wire::Number(bytes.substr(64, 4)));
    seeds["frame/seed-damaged-at-" + std::to_string(at)] = FrameStep(0, damaged);
  }
}

// ---- Control messages.

std::vector<ControlMessage> Messages() {
  std::vector<ControlMessage> all(16);
  control::Hello& hello = *all[0].mutable_hello();
  hello.set_software("a fuzzer");
  hello.set_session_id(kSessionId);
  hello.set_frame_version(1);
  hello.add_transports(control::TRANSPORT_TCP);
  hello.set_lanes(1);
  hello.set_packet_bytes(8);
  control::Welcome& welcome = *all[1].mutable_welcome();
  welcome.set_window_packets(4);
  welcome.set_queue_packets(4);
  welcome.set_transport(control::TRANSPORT_TCP);
  control::DeviceTable::Device& row = *all[2].mutable_device_table()->add_devices();
  row.set_name("soft");
  row.set_kind("soft");
  row.set_p2p(true);
  control::LaneSetup::Verbs& verbs = *all[3].mutable_lane_setup()->add_verbs();
  verbs.set_queue_pair(17);
  verbs.set_gid(kSessionId);
  all[4].mutable_receipts()->add_lane_packets(3);
  all[4].mutable_receipts()->add_device_packets(3);
  all[4].mutable_receipts()->add_device_bytes(kStreamBytes);
  control::Loaded::Device& loaded = *all[5].mutable_loaded()->add_devices();
  loaded.set_bytes(kStreamBytes);
  loaded.set_crc32c(wire::Crc32c(TheStream()));
  loaded.set_content_verified(true);
  all[6].mutable_commit()->set_session_id(kSessionId);
  all[7].mutable_done();
  all[8].mutable_ping();
  all[9].mutable_abort()->set_reason("why not");
  all[10].mutable_stopping();
  all[11].mutable_rolled_back()->set_reason("no");
  all[12].mutable_forget();
  all[13].mutable_lane_down()->set_generation(1);
  all[14].mutable_remake_lane()->set_generation(1);
  *all[14].mutable_remake_lane()->mutable_verbs() = verbs;
  all[15].mutable_lane_remade()->set_generation(1);
  *all[15].mutable_lane_remade()->mutable_verbs() = verbs;
  return all;
}

void AddControl(Seeds& seeds) {
  constexpr uint8_t kWithPreface = 1;
  constexpr uint8_t kFramed = 6;  // with the right preface in front
  const auto preface = ControlPreface();
  const std::string our_preface(preface.data(), preface.size());
  std::string raw = our_preface;
  std::string framed;
  for (const ControlMessage& message : Messages()) {
    const std::string body = message.SerializeAsString();
    raw += wire::BigEndian(body.size(), 4) + body;
    framed += wire::BigEndian(body.size(), 2) + body;
    seeds["control/seed-message-" + std::to_string(message.message_case())] =
        Byte(kFramed | kWithPreface) + Byte(1) + Byte(9) + wire::BigEndian(body.size(), 2) + body;
  }
  seeds["control/seed-all"] = Byte(kWithPreface) + Byte(3) + "\x03\x09\x40" + raw;
  seeds["control/seed-all-framed"] = Byte(kFramed | kWithPreface) + Byte(2) + "\x07\x20" + framed;
  seeds["control/seed-too-long"] = Byte(kWithPreface) + Byte(0) + our_preface + "\1\2\3\4";
  seeds["control/seed-other-version"] = Byte(kWithPreface) + Byte(0) + "GODWIT\1\1";
  seeds["control/seed-lane"] =
      Byte(kWithPreface) + Byte(1) + "\x05" + "GODWITLN" + kSessionId + wire::BigEndian(7, 4);
}

// ---- Sealed frames.

void AddSealed(Seeds& seeds) {
  constexpr uint8_t kForeign = 1;
  constexpr uint8_t kCut = 2;
  constexpr uint8_t kRight = 12;  // header CRC and length
  const auto add = [&seeds](const std::string& name, uint8_t flags, const std::string& from,
                            const wire::Frame& frame, const std::string& changes) {
    seeds["sealed/seed-" + name] =
        Byte(flags) + Byte(3) + from + FrameStep(0, frame).substr(1) + changes;
  };
  const std::vector<wire::Frame> frames = TheFrames();
  add("data", 0, "\3", frames[1], "");
  add("config", 0, "\3", frames[2], "");
  add("other-lane", 0, "\4", frames[1], "");
  add("cut", kCut | kRight, "\3", frames[1], wire::BigEndian(7, 2));
  add("foreign", kForeign | kRight, "\3", frames[1], "");
  // Type, device, epoch, lane sequence, what is hidden, tag, index, flags, payload.
  for (const size_t at : {5U, 7U, 11U, 23U, 24U, 40U, 75U, 79U, 80U}) {
    add("changed-" + std::to_string(at), kRight, "\3", frames[1], wire::BigEndian(at, 2) + "\1");
  }
}

// ---- TLS.

std::string WithLength(const std::string& bytes, size_t length_bytes) {
  return wire::BigEndian(bytes.size(), length_bytes) + bytes;
}
std::string TlsRecord(uint8_t type, const std::string& body) {
  return Byte(type) + "\3\1" + WithLength(body, 2);
}
// As a browser's that knows no version but `version` (0x0303: TLS 1.2).
std::string ClientHello(size_t version) {
  const auto extension = [](size_t type, const std::string& body) {
    return wire::BigEndian(type, 2) + WithLength(body, 2);
  };
  const std::string group = wire::BigEndian(0x1d, 2);  // x25519
  const std::string extensions =
      extension(43, WithLength(wire::BigEndian(version, 2), 1)) +
      extension(10, WithLength(group, 2)) +
      extension(13, WithLength(wire::BigEndian(0x0403, 2), 2)) +
      extension(51, WithLength(group + WithLength(std::string(32, 'k'), 2), 2));
  const std::string hello = "\3\3" + std::string(32, 'r') + WithLength(std::string(32, 's'), 1) +
                            WithLength(wire::BigEndian(0x1302, 2), 2) + Byte(1) + Byte(0) +
                            WithLength(extensions, 2);
  return TlsRecord(22, Byte(1) + WithLength(hello, 3));
}

void AddTls(Seeds& seeds) {
  const std::string pass = Byte(0x80) + Byte(0) + Byte(0) + Byte(0);  // the client's, the server's
  const std::string meet = pass + pass + pass;
  const auto say = [](size_t from, const std::string& text) {
    return Byte(from | 6U) + Byte(text.size()) + text;
  };
  const std::string talk = say(0x80, "hello") + say(0, "welcome") + pass;
  const std::string ends = Byte(0x87) + Byte(0) + Byte(7) + Byte(0) + pass;
  const std::string hello = say(0x80, "hello");
  const std::string alert = TlsRecord(21, std::string("\1\0", 2));  // close_notify
  const auto add = [&seeds](const std::string& name, std::initializer_list<std::string> parts) {
    seeds[absl::StrCat("tls/seed-", name)] = absl::StrJoin(parts, "");
  };
  for (const size_t kind : {0U, 4U}) {  // a pre-shared key, certificates
    const std::string flags = Byte(kind);
    const std::string name = kind == 0 ? "psk" : "certificates";
    add("meet-" + name, {flags, meet, talk, ends});
    add("in-pieces-" + name, {flags, Byte(0x81), Byte(99), meet, talk, ends});
    add("changed-" + name, {flags, meet, hello, Byte(0x82), Byte(200), Byte(1), pass});
    add("changed-hello-" + name, {flags, Byte(0x82), Byte(60), Byte(1), meet});
    add("again-" + name, {flags, meet, hello, Byte(0x84), Byte(0), pass});
    add("cut-off-" + name, {flags, meet, hello, Byte(0x83), Byte(128), Byte(255), pass});
    add("closed-by-another-" + name, {flags, pass, Byte(5), Byte(alert.size()), alert, pass});
    for (const size_t stranger : {1U, 3U, 9U, 11U}) {
      std::string head = absl::StrCat(Byte(kind | stranger), Byte(1), Byte(7));
      if (stranger == 11) absl::StrAppend(&head, "GODWIT", Byte(kind == 0 ? 2 : 1), "\1");
      const std::string at = absl::StrCat(name, "-", stranger);
      add("hello-13-" + at, {head, ClientHello(0x0304)});
      add("hello-12-" + at, {head, ClientHello(0x0303)});
      add("http-" + at, {head, "GET / HTTP/1.1\r\n\r\n"});
      add("alert-" + at, {head, alert});
      add("long-record-" + at, {head, "\x16\3\1\xff\xff", std::string(99, '\1')});
    }
  }
}

// ---- Sessions.

std::string Step(HandshakeStep what, size_t argument, const std::string& bytes) {
  return Byte(what) + Byte(argument) + wire::BigEndian(bytes.size(), 2) + bytes;
}
std::string Say(const ControlMessage& message) {
  return Step(kSayMessage, 0, message.SerializeAsString());
}
std::string Hear(ControlMessage::MessageCase kind) {
  return Step(kHear, static_cast<size_t>(kind), "");
}

void AddHandshakes(Seeds& seeds) {
  const std::vector<ControlMessage> messages = Messages();
  const auto preface = ControlPreface();
  const std::string greeting = Step(kSayBytes, 0, std::string(preface.data(), preface.size()));
  ControlMessage no_verbs;
  no_verbs.mutable_lane_setup();

  const std::string to_target = Byte(0) + greeting;
  seeds["handshake/seed-hello"] = to_target + Say(messages[0]);
  const std::string agreed = to_target + Say(messages[0]) + Hear(ControlMessage::kWelcome) +
                             Say(messages[2]) + Hear(ControlMessage::kDeviceTable) + Say(no_verbs);
  seeds["handshake/seed-agreed"] = agreed;
  std::string streamed = agreed +
                         Step(kOpenLane, 0, "GODWITLN" + kSessionId + wire::BigEndian(0, 4)) +
                         Hear(ControlMessage::kLaneSetup) + Say(messages[10]);
  seeds["handshake/seed-stopping"] = streamed;
  for (const wire::Frame& frame : TheFrames()) {
    streamed += Step(kSayFrame, 0, FrameStep(0, frame).substr(1));
  }
  streamed += Hear(ControlMessage::kLoaded);
  seeds["handshake/seed-streamed"] = streamed;
  seeds["handshake/seed-committed"] =
      streamed + Say(messages[6]) + Hear(ControlMessage::kDone) + Say(messages[12]);
  seeds["handshake/seed-aborted"] = streamed + Say(messages[9]);

  ControlMessage ping = messages[0];
  ping.mutable_hello()->set_ping(true);
  seeds["handshake/seed-pinged"] =
      to_target + Say(ping) + Hear(ControlMessage::kDeviceTable) + Say(no_verbs) +
      Step(kOpenLane, 0, "GODWITLN" + kSessionId + wire::BigEndian(0, 4)) +
      Hear(ControlMessage::kLaneSetup) +
      Step(kSayOnLane, 0, wire::WithLength(std::string(wire::kHeaderBytes + 8, '\0'))) +
      Hear(ControlMessage::kReceipts);

  const std::string welcomed = Byte(1) + greeting + Hear(ControlMessage::kHello) +
                               Say(messages[1]) + Hear(ControlMessage::kDeviceTable) +
                               Say(messages[2]) + Hear(ControlMessage::kLaneSetup) + Say(no_verbs);
  seeds["handshake/seed-welcomed"] = welcomed;
  const std::string loaded = welcomed + Hear(ControlMessage::kStopping) + Say(messages[4]) +
                             Say(messages[5]) + Hear(ControlMessage::kCommit);
  seeds["handshake/seed-loaded"] = loaded;
  seeds["handshake/seed-done"] = loaded + Say(messages[7]) + Hear(ControlMessage::kForget);
  seeds["handshake/seed-rolled-back"] = loaded + Say(messages[11]);
}

// ---- Configurations.

void AddConfigs(Seeds& seeds) {
  constexpr uint8_t kMarked = 1;
  constexpr uint8_t kSealed = 2;
  constexpr uint8_t kSpace = 4;
  std::string space(256, '\0');
  const auto put = [&space](size_t at, uint32_t value, size_t bytes) {
    space.replace(at, bytes, image::Little(value, bytes));
  };
  put(PCI_VENDOR_ID, 0x15b3, 2);
  put(PCI_DEVICE_ID, 0x101e, 2);
  put(PCI_STATUS, PCI_STATUS_CAP_LIST, 2);
  put(PCI_CLASS_REVISION, 0x02000001, 4);
  put(PCI_CAPABILITY_LIST, 0x60, 1);
  put(0x60, PCI_CAP_ID_EXP | 0x90 << 8 | 2 << 16, 4);
  put(0x90, PCI_CAP_ID_MSI | 0xb0 << 8, 2);
  put(0x90 + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT, 2);
  put(0xb0, PCI_CAP_ID_MSIX, 2);
  put(0xb0 + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | 3, 2);
  put(0xb0 + PCI_MSIX_TABLE, 0x1002, 4);
  const std::string config = EncodePciConfig({space, std::string(4 * kMsixEntryBytes, 't')});
  seeds["config/seed-marked"] = Byte(0) + wire::ConfigPayload(config);
  seeds["config/seed-pci"] = Byte(kMarked | kSealed) + config;
  seeds["config/seed-no-table"] = Byte(kSealed) + EncodePciConfig({space, ""});
  seeds["config/seed-least"] = Byte(kSealed) + EncodePciConfig({space.substr(0, 64), ""});
  seeds["config/seed-space"] = Byte(kSpace) + space;
  seeds["config/seed-empty"] = Byte(kMarked);
}

// ---- Streams.

std::string SoftStream(SoftProfile profile, uint64_t size_bytes) {
  const SoftContent content(/*seed=*/3);
  const SoftImage image(profile, size_bytes, content);
  const uint64_t half = std::min(size_bytes / 2, image.record_bytes_max());
  return image.Encode({SoftExtent::Kind::kOpening}) +
         image.Encode({SoftExtent::Kind::kUnknownOptional}) +
         image.Encode({SoftExtent::Kind::kData, 0, half}) +
         image.Encode({SoftExtent::Kind::kData, half, size_bytes - half}) +
         image.Encode({SoftExtent::Kind::kClosing});
}

void AddStreams(Seeds& seeds) {
  const auto add = [&seeds](const std::string& name, size_t zeros_kib, const std::string& stream) {
    seeds["stream/seed-" + name] = Byte(3) + "\x01\x10\x07" + Byte(zeros_kib) + stream;
  };
  add("mlx5", 0, image::Mlx5());
  add("virtio", 0, image::Virtio());
  add("virtio-parts", 0, image::VirtioParts());
  add("mtty", 0, image::Mtty());
  // Its 4096 bytes end in zeros, three of which are the target's to add.
  add("qat", 3, image::Qat().substr(0, 1024));
  add("xe", 0, image::Xe());
  add("hisi", 0, image::Hisi());
  add("hisi-v1", 0, image::Hisi(0xcdcdcdcdfeedaacc));
  add("pds", 64, "");
  add("pds-too-long", 64, "x");
  add("mandatory", 0, image::Record(7, 0, "unknown"));
  for (const SoftProfile profile : {SoftProfile::kMlx5, SoftProfile::kVirtio, SoftProfile::kXe}) {
    add("soft-" + std::string(SoftProfileName(profile)), 0, SoftStream(profile, 300));
  }
}

// ---- Captures.

void AddCaptures(Seeds& seeds) {
  constexpr uint8_t kSealed = 15;
  const CaptureHeader header = {8, {{"soft", kSpec, {true, false}, kStreamBytes}}};
  const std::string head = EncodeCaptureHeader(header);
  const std::string file = head + OnTheWire(TheFrames());
  const std::string trailer = EncodeCaptureTrailer({TheFrames().size(), file.size()});
  seeds["capture/seed-whole"] = Byte(0) + file + trailer;
  seeds["capture/seed-sealed"] = Byte(kSealed) + file;
  seeds["capture/seed-cut-off"] = Byte(0) + file.substr(0, file.size() - 5);
  seeds["capture/seed-nothing-in-it"] = Byte(kSealed) + head;
  const CaptureHeader two = {8, {header.devices[0], {"file", "state", {}, 0}}};
  seeds["capture/seed-two-devices"] = Byte(kSealed) + EncodeCaptureHeader(two);
}

// ----

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool Check(const std::filesystem::path& corpus, const Seeds& seeds) {
  bool right = true;
  for (const auto& [name, bytes] : seeds) {
    if (std::filesystem::exists(corpus / name) && Read(corpus / name) == bytes) continue;
    std::fprintf(stderr, "%s is not what make_fuzz_seeds writes: run it on %s\n", name.c_str(),
                 corpus.c_str());
    right = false;
  }
  return right;
}

bool Write(const std::filesystem::path& corpus, const Seeds& seeds) {
  for (const auto& [name, bytes] : seeds) {
    std::filesystem::create_directories((corpus / name).parent_path());
    std::ofstream file(corpus / name, std::ios::binary);
    file << bytes;
    if (file.flush()) continue;
    std::fprintf(stderr, "%s can't be written\n", (corpus / name).c_str());
    return false;
  }
  return true;
}

int Main(int argc, char** argv) {
  const bool check = argc == 3 && std::string(argv[1]) == "--check";
  if (argc != 2 && !check) {
    std::fprintf(stderr, "usage: make_fuzz_seeds [--check] CORPUS\n");
    return 2;
  }
  Seeds seeds;
  AddFrames(seeds);
  AddSealed(seeds);
  AddControl(seeds);
  AddTls(seeds);
  AddHandshakes(seeds);
  AddConfigs(seeds);
  AddStreams(seeds);
  AddCaptures(seeds);
  const std::filesystem::path corpus = argv[argc - 1];
  if (!(check ? Check(corpus, seeds) : Write(corpus, seeds))) return 1;
  std::printf("%zu seeds\n", seeds.size());
  return 0;
}

}  // namespace
}  // namespace godwit::fuzz

int main(int argc, char** argv) { return godwit::fuzz::Main(argc, argv); }
