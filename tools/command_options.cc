#include "tools/command_options.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>

#include "base/units.h"
#include "engine/packet.h"
#include "engine/rdma_ports.h"
#include "godwit/ping.h"
#include "godwit/stream_check.h"
#include "tools/durations.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

std::string WrongPacketBytes(const std::string& text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return std::string(bytes.status().message());
  if (*bytes >= 1 && *bytes <= kPacketBytesMax) return "";
  return absl::StrCat("'", text, "' is out of range: a packet has 1 to ", kPacketBytesMax,
                      " bytes of state (8 MiB less its header)");
}

std::string WrongProfile(const std::string& text) {
  return std::string(MakeStreamCheck(text).status().message());
}

// CLI11 would take an enumeration's numbers, too.
TransportKind TransportOf(const std::string& name) {
  for (const auto kind : {TransportKind::kAuto, TransportKind::kTcp, TransportKind::kVerbs}) {
    if (name == TransportName(kind)) return kind;
  }
  throw CLI::ValidationError("--transport", absl::StrCat("'", name, "' is not tcp, verbs or auto"));
}

std::string WrongTrace(const std::string& text) {
  return text.empty() || text == "-" ? absl::StrCat("'", text, "' is no file") : "";
}

void AddTransport(CLI::App& app, TransportKind& transport, const char* about) {
  app.add_option_function<std::string>(
         "--transport", [&transport](const std::string& name) { transport = TransportOf(name); },
         about)
      ->type_name("tcp|verbs|auto")
      ->default_str(std::string(TransportName(transport)));
}

void AddLanes(CLI::App& app, uint32_t& lanes, const char* about) {
  app.add_option("--lanes", lanes, about)
      ->check(CLI::Range(1U, kLanesMax).description(""))
      ->type_name("N")
      ->capture_default_str();
}

std::string WrongDuration(const std::string& text) {
  return std::string(ParseMilliseconds(text).status().message());
}

std::string WrongShortDuration(const std::string& text) {
  return std::string(ParseNanoseconds(text).status().message());
}

OnNoConvergence OnNoConvergenceOf(const std::string& name) {
  if (name == "switch") return OnNoConvergence::kSwitch;
  if (name == "abort") return OnNoConvergence::kAbort;
  throw CLI::ValidationError("--on-no-convergence",
                             absl::StrCat("'", name, "' is not switch or abort"));
}

std::string WrongRdmaDevice(const std::string& text) {
  return std::string(ParseRdmaDevices(text).status().message());
}

bool IsOn(const char* option, const std::string& name) {
  if (name == "on") return true;
  if (name == "off") return false;
  throw CLI::ValidationError(option, absl::StrCat("'", name, "' is not on or off"));
}

SealMode SealModeOf(const std::string& name) {
  if (name == "auto") return SealMode::kAuto;
  if (name == "on") return SealMode::kOn;
  if (name == "off") return SealMode::kOff;
  throw CLI::ValidationError("--seal", absl::StrCat("'", name, "' is not on, off or auto"));
}

}  // namespace

std::string WrongSize(const std::string& text) {
  return std::string(ParseBytes(text).status().message());
}

std::string WrongAddress(const std::string& text) {
  return std::string(ParseTcpAddress(text).status().message());
}

std::string WrongDestination(const std::string& text) {
  const absl::StatusOr<TcpAddress> address = ParseTcpAddress(text);
  if (!address.ok()) return std::string(address.status().message());
  if (address->port != 0) return "";
  return absl::StrCat("'", text, "': port 0 is for listening only, give the receiver's port");
}

std::string WrongPortFd(const std::string& text) {
  int fd = -1;
  if (absl::SimpleAtoi(text, &fd) && ::fcntl(fd, F_GETFD) >= 0) return "";
  return absl::StrCat("'", text, "' is not the number of an open file descriptor");
}

std::string WrongFormat(const std::string& text) {
  if (text == "capture" || MakeStreamCheck(text).ok()) return "";
  return absl::StrCat(WrongProfile(text), ", capture");
}

void AddJson(CLI::App& app, std::string& json) {
  app.add_option("--json", json, "Write the result as JSON to FILE; - is standard output")
      ->type_name("FILE");
}

void AddTrace(CLI::App& app, std::string& trace, const char* about) {
  app.add_option("--trace", trace, about)->check(WrongTrace)->type_name("FILE");
}

void AddMetrics(CLI::App& app, std::string& metrics) {
  app.add_option("--metrics", metrics,
                 "Answer GET /metrics there while the session runs, as Prometheus reads it")
      ->check(WrongAddress)
      ->type_name("ADDR:PORT");
}

void AddPacketBytes(CLI::App& app, std::string& packet_bytes, const char* about) {
  app.add_option("--packet-bytes", packet_bytes, about)
      ->check(WrongPacketBytes)
      ->type_name("SIZE")
      ->capture_default_str();
}

// What a source asks for.
void AddAskedFor(CLI::App& app, TransportKind& transport, uint32_t& lanes,
                 std::string& packet_bytes) {
  AddTransport(app, transport,
               "How packets travel: tcp, verbs (RDMA queue pairs) or auto (verbs where both hosts "
               "have a port, else tcp)");
  AddLanes(app, lanes, "Connections or queue pairs side by side");
  AddPacketBytes(app, packet_bytes);
}

// What a target accepts.
void AddAccepted(CLI::App& app, TransportKind& transport, uint32_t& lanes,
                 std::string& packet_bytes) {
  AddTransport(app, transport,
               "What it accepts: tcp, verbs (RDMA queue pairs) or auto (whatever this host can)");
  AddLanes(app, lanes, "The most connections or queue pairs that it accepts");
  AddPacketBytes(app, packet_bytes, "The largest packets that it accepts");
}

std::string WrongPingTime(const std::string& text) {
  const auto time = ParseMilliseconds(text);
  if (!time.ok()) return std::string(time.status().message());
  if (*time <= kPingTimeMax) return "";
  return absl::StrCat("'", text, "' is out of range: packets flow for ", kPingTimeMax.count(),
                      " s at most");
}

CLI::Option* AddDuration(CLI::App& app, const char* name, std::string& text, const char* help) {
  return app.add_option(name, text, help)
      ->check(WrongDuration)
      ->type_name("DURATION")
      ->capture_default_str();
}

void AddPrecopy(CLI::App& app, PrecopyArguments& precopy) {
  app.add_flag("--no-precopy", precopy.off,
               "Stop the devices at once, also those that could be copied while they run");
  AddDuration(app, "--downtime-limit", precopy.downtime_limit,
              "Stop the devices once the estimated downtime is under this");
  AddDuration(app, "--precopy-max-time", precopy.max_time, "Copy running devices no longer than");
  app.add_option("--precopy-max-bytes", precopy.max_bytes,
                 "Copy no more than this of running devices (default: no limit)")
      ->check(WrongSize)
      ->type_name("SIZE");
  app.add_option_function<std::string>(
         "--on-no-convergence",
         [&precopy](const std::string& name) {
           precopy.on_no_convergence = OnNoConvergenceOf(name);
         },
         "When a bound is reached before the downtime limit, or there is nothing more to gain: "
         "switch all the same, or abort")
      ->type_name("switch|abort")
      ->default_str("switch");
  app.add_option("--fixed-downtime", precopy.fixed_downtime,
                 "What stopping and starting these devices takes beside moving their bytes, as an "
                 "earlier session's switchover.fixed_downtime_ms says (default: as measured before "
                 "they stop)")
      ->check(WrongShortDuration)
      ->type_name("DURATION");
}

void AddCheck(CLI::App& app, std::vector<std::string>& checks) {
  app.add_option(
         "--check", checks,
         absl::StrCat("Refuse a stream that a driver like PROFILE would not know, before it "
                      "reaches the device; once for all devices, or once for each. PROFILE "
                      "is one of ",
                      StreamCheckProfiles()))
      ->type_name("PROFILE")
      ->check(WrongProfile)
      ->allow_extra_args(false);
}

void AddRdmaDevice(CLI::App& app, std::string& rdma_device) {
  app.add_option("--rdma-device", rdma_device,
                 "The RDMA device to use, as `godwit devices` names it (default: the best). "
                 "NAME/PORT/GID for one of its ports and that one's addresses; several, with "
                 "commas between, share the lanes")
      ->check(WrongRdmaDevice)
      ->type_name("NAME");
}

void AddCrc(CLI::App& app, bool& crc) {
  app.add_option_function<std::string>(
         "--crc", [&crc](const std::string& name) { crc = IsOn("--crc", name); },
         "Check payloads and whole streams by CRC-32C. off, which both sides have to say, is for "
         "measuring what that costs: damage on the way may then go unseen")
      ->type_name("on|off")
      ->default_str("on");
}

void AddSpin(CLI::App& app, uint32_t& spin_us) {
  constexpr uint32_t kSpinUsMax = 1'000'000;
  app.add_option("--spin-us", spin_us,
                 "With the VM stopped: look for packets for so many microseconds, on a whole CPU, "
                 "before each sleep")
      ->check(CLI::Range(0U, kSpinUsMax).description(""))
      ->type_name("N")
      ->capture_default_str();
}

void AddDevices(CLI::App& app, std::vector<std::string>& devices) {
  app.add_option("--device", devices,
                 "A device, as SPEC (below); repeat for more. The devices of the two sides pair by "
                 "position")
      ->type_name("SPEC")
      ->required()
      ->allow_extra_args(false);
}

void AddTrust(CLI::App& app, TrustOptions& trust, const char* about_peer_name) {
  app.add_option("--tls-cert", trust.certificate_file,
                 "TLS 1.3: this side's certificate, in PEM form, with its chain")
      ->type_name("FILE");
  app.add_option("--tls-key", trust.key_file, "Its key, without a passphrase")->type_name("FILE");
  app.add_option("--tls-ca", trust.ca_file, "The CA that the peer's certificate must be from")
      ->type_name("FILE");
  app.add_option("--tls-peer-name", trust.peer_name, about_peer_name)->type_name("NAME");
  app.add_option("--psk-file", trust.psk_file,
                 "TLS 1.3 with this key, which both sides have, in place of certificates")
      ->type_name("FILE");
  app.add_option_function<std::string>(
         "--seal", [&trust](const std::string& name) { trust.seal = SealModeOf(name); },
         "Seal each packet with AES-256-GCM, which needs certificates or a key: on, off or auto "
         "(on over TCP, but not between loopback addresses)")
      ->type_name("on|off|auto")
      ->default_str("auto");
  app.add_flag("--insecure", trust.insecure,
               "Without TLS on other than loopback addresses: whoever is on that network can read "
               "and change the devices' state");
}

}  // namespace godwit
