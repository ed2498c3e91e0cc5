// The godwit command: options in, one subcommand out.

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>
#include <fcntl.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/units.h"
#include "engine/packet.h"
#include "godwit/ping.h"
#include "godwit/stream_check.h"
#include "tools/commands.h"
#include "tools/durations.h"
#include "tools/report.h"
#include "transport/tcp/tcp_socket.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

// Validators for CLI11: what is wrong with the text, or nothing.
std::string WrongSize(const std::string& text) {
  return std::string(ParseBytes(text).status().message());
}

std::string WrongPacketBytes(const std::string& text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return std::string(bytes.status().message());
  if (*bytes >= 1 && *bytes <= kPacketBytesMax) return "";
  return absl::StrCat("'", text, "' is out of range: a packet has 1 to ", kPacketBytesMax,
                      " bytes of state (8 MiB less its header)");
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

std::string WrongProfile(const std::string& text) {
  return std::string(MakeStreamCheck(text).status().message());
}

std::string WrongFormat(const std::string& text) {
  if (text == "capture" || MakeStreamCheck(text).ok()) return "";
  return absl::StrCat(WrongProfile(text), ", capture");
}

// CLI11 would take an enumeration's numbers, too.
TransportKind TransportOf(const std::string& name) {
  for (const auto kind : {TransportKind::kAuto, TransportKind::kTcp, TransportKind::kVerbs}) {
    if (name == TransportName(kind)) return kind;
  }
  throw CLI::ValidationError("--transport", absl::StrCat("'", name, "' is not tcp, verbs or auto"));
}

// Help that fits the usual terminal: CLI11 breaks no line by itself, but indents what is broken.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(30); }

  std::string make_option_desc(const CLI::Option* option) const override {
    return Broken(CLI::Formatter::make_option_desc(option));
  }
  std::string make_subcommand(const CLI::App* subcommand) const override {
    std::stringstream out;
    CLI::detail::format_help(out, subcommand->get_name(), Broken(subcommand->get_description()),
                             get_column_width());
    return out.str();
  }

 private:
  static std::string Broken(const std::string& text) {
    constexpr size_t kWidth = 68;
    std::string broken;
    size_t line_bytes = 0;
    for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
      if (line_bytes > 0 && line_bytes + 1 + word.size() > kWidth) {
        broken += '\n';
        line_bytes = 0;
      } else if (line_bytes > 0) {
        broken += ' ';
        ++line_bytes;
      }
      absl::StrAppend(&broken, word);
      line_bytes += word.size();
    }
    return broken;
  }
};

// One line, like every other error: what is wrong, and where to read on.
std::string UsageError(const CLI::App* app, const CLI::Error& error) {
  std::string what = error.what();
  std::string help = "godwit ";
  const std::vector<CLI::App*> parsed = app->get_subcommands();
  if (!parsed.empty()) {
    absl::StrAppend(&help, parsed[0]->get_name(), " ");
  } else if (const std::vector<std::string> words = app->remaining(); !words.empty()) {
    const std::string& word = words[0];
    what = absl::StrCat("there is no ", absl::StartsWith(word, "-") ? "option" : "subcommand", " '",
                        word, "'");
  }
  return absl::StrCat("godwit: error: ", OneLine(what), "; see ", help, "--help\n");
}

void AddJson(CLI::App& app, std::string& json) {
  app.add_option("--json", json, "Write the result as JSON to FILE; - is standard output")
      ->type_name("FILE");
}

constexpr const char* kTraceHelp =
    "Write a time line of the session to FILE, for Perfetto or chrome://tracing";

std::string WrongTrace(const std::string& text) {
  return text.empty() || text == "-" ? absl::StrCat("'", text, "' is no file") : "";
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

void AddPacketBytes(CLI::App& app, std::string& packet_bytes,
                    const char* about = "Most device state in one packet") {
  app.add_option("--packet-bytes", packet_bytes, about)
      ->check(WrongPacketBytes)
      ->type_name("SIZE")
      ->capture_default_str();
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

std::string WrongDuration(const std::string& text) {
  return std::string(ParseMilliseconds(text).status().message());
}

std::string WrongPingTime(const std::string& text) {
  const auto time = ParseMilliseconds(text);
  if (!time.ok()) return std::string(time.status().message());
  if (*time <= kPingTimeMax) return "";
  return absl::StrCat("'", text, "' is out of range: packets flow for ", kPingTimeMax.count(),
                      " s at most");
}

std::string WrongShortDuration(const std::string& text) {
  return std::string(ParseNanoseconds(text).status().message());
}

CLI::Option* AddDuration(CLI::App& app, const char* name, std::string& text, const char* help) {
  return app.add_option(name, text, help)
      ->check(WrongDuration)
      ->type_name("DURATION")
      ->capture_default_str();
}

OnNoConvergence OnNoConvergenceOf(const std::string& name) {
  if (name == "switch") return OnNoConvergence::kSwitch;
  if (name == "abort") return OnNoConvergence::kAbort;
  throw CLI::ValidationError("--on-no-convergence",
                             absl::StrCat("'", name, "' is not switch or abort"));
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
      ->type_name("NAME");
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

SealMode SealModeOf(const std::string& name) {
  if (name == "auto") return SealMode::kAuto;
  if (name == "on") return SealMode::kOn;
  if (name == "off") return SealMode::kOff;
  throw CLI::ValidationError("--seal", absl::StrCat("'", name, "' is not on, off or auto"));
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

int Main(int argc, char** argv) {
  auto logger = spdlog::stderr_logger_mt("godwit");
  logger->set_pattern("godwit: %l: %v");
  spdlog::set_default_logger(logger);
  // A peer that is gone is an error code, not the end of the process.
  ::signal(SIGPIPE, SIG_IGN);

  CLI::App app{
      "Moves the state of VFIO devices (NIC functions, GPUs, accelerators) from one host to\n"
      "another while their virtual machine hardly stops, over RDMA or TCP.\n\n"
      "Once:                godwit keygen --psk --out keys, and copy keys/psk to both hosts\n"
      "On the target host:  godwit receive --listen 0.0.0.0:7471 --psk-file psk \\\n"
      "                       --device vfio:0000:01:00.1\n"
      "On the source host:  godwit send --to target:7471 --psk-file psk \\\n"
      "                       --device vfio:0000:01:00.1\n"
      "To see it work:      godwit loopback",
      "godwit"};
  app.set_version_flag("--version", absl::StrCat("godwit ", GODWIT_VERSION));
  app.require_subcommand(1);
  app.failure_message(UsageError);
  app.formatter(std::make_shared<HelpFormatter>());  // the subcommands inherit it
  const std::string ends =
      "SIZE is a number with B, KiB, MiB, GiB or TiB, as in 64MiB; DURATION as in 300ms, 1.5s, "
      "2m.\n"
      "Exit code: 0 done; 1 failed, and the devices are back where they were; 2 wrong usage;\n"
      "3 contact was lost at the handover: look at both hosts before you start either device.\n"
      "Where --json or --trace can't be written, 1 instead of 0: the error says what the session\n"
      "came to.";
  const std::string footer = absl::StrCat("SPEC names a device:\n", DeviceSpecHelp(), "\n", ends);
  app.footer(footer);

  LoopbackCommand loopback;
  CLI::App& loopback_app = *app.add_subcommand(
      "loopback", "Move software devices between two processes on this machine, and check them");
  loopback_app.add_option("--devices", loopback.devices, "How many")
      ->check(CLI::Range(1U, kDevicesMax).description(""))
      ->type_name("N")
      ->capture_default_str();
  loopback_app.add_option("--size", loopback.size, "State of each device")
      ->check(WrongSize)
      ->type_name("SIZE")
      ->capture_default_str();
  loopback_app
      .add_option("--seed", loopback.seed, "The first device's content; the next has S + 1, …")
      ->type_name("S")
      ->capture_default_str();
  loopback_app
      .add_option("--soft", loopback.soft,
                  "More of each device, as in profile=mlx5,dirty=64MiB: see SPEC in "
                  "`godwit send --help`")
      ->type_name("KEY=VALUE,…");
  AddPrecopy(loopback_app, loopback.precopy);
  loopback_app.footer(ends);
  AddAskedFor(loopback_app, loopback.transport, loopback.lanes, loopback.packet_bytes);
  AddTrace(
      loopback_app, loopback.trace,
      "Write time lines for Perfetto or chrome://tracing: the source's to FILE, the target's to "
      "FILE.target");
  AddJson(loopback_app, loopback.json);

  SendCommand send;
  CLI::App& send_app =
      *app.add_subcommand("send", "Move devices of this host to a host that runs godwit receive");
  send_app.add_option("--to", send.to, "Where godwit receive listens")
      ->check(WrongDestination)
      ->type_name("ADDR:PORT")
      ->required();
  AddDevices(send_app, send.devices);
  AddTrust(send_app, send.trust,
           "The name or address that the target's certificate must have (default: the host in "
           "--to)");
  AddAskedFor(send_app, send.transport, send.lanes, send.packet_bytes);
  AddRdmaDevice(send_app, send.rdma_device);
  AddSpin(send_app, send.spin_us);
  AddPrecopy(send_app, send.precopy);
  AddDuration(send_app, "--reconnect-timeout", send.reconnect_timeout,
              "When no lane is left: make them again for so long, then roll back");
  AddDuration(send_app, "--resolve-timeout", send.resolve_timeout,
              "When contact is lost at the handover: ask the target how it ended for so long");
  AddTrace(send_app, send.trace, kTraceHelp);
  AddMetrics(send_app, send.metrics);
  AddJson(send_app, send.json);
  send_app.footer(footer);

  ReceiveCommand receive;
  CLI::App& receive_app =
      *app.add_subcommand("receive", "Wait for one godwit send, take its devices, and exit");
  receive_app.add_option("--listen", receive.listen, "Address and port; port 0 takes a free one")
      ->check(WrongAddress)
      ->type_name("ADDR:PORT")
      ->required();
  AddDevices(receive_app, receive.devices);
  AddTrust(receive_app, receive.trust,
           "The name or address that the source's certificate must have (default: any of the CA)");
  AddAccepted(receive_app, receive.transport, receive.lanes, receive.packet_bytes);
  AddRdmaDevice(receive_app, receive.rdma_device);
  AddSpin(receive_app, receive.spin_us);
  AddCheck(receive_app, receive.checks);
  AddDuration(receive_app, "--commit-timeout", receive.commit_timeout,
              "With everything loaded, wait no longer for the source to hand over");
  AddDuration(receive_app, "--outcome-hold", receive.outcome_hold,
              "When the source may not know how it ended: stay so long to tell it");
  AddTrace(receive_app, receive.trace, kTraceHelp);
  AddMetrics(receive_app, receive.metrics);
  AddJson(receive_app, receive.json);
  receive_app
      .add_option("--port-fd", receive.port_fd,
                  "Write the port number to this file descriptor, and close it, once it listens")
      ->check(WrongPortFd)
      ->type_name("FD");
  receive_app.footer(footer);

  SaveCommand save;
  CLI::App& save_app = *app.add_subcommand(
      "save", "Save devices' state to a file, a capture; the devices run on after it");
  AddDevices(save_app, save.devices);
  save_app.add_option("--out", save.out, "The file; it has this name once it is whole")
      ->type_name("FILE")
      ->required();
  save_app.add_flag("--force", save.force, "Replace FILE if it is there");
  save_app.add_flag("--stop", save.stop, "Leave the devices stopped");
  AddPacketBytes(save_app, save.packet_bytes);
  AddJson(save_app, save.json);
  save_app.footer(footer);

  LoadCommand load;
  CLI::App& load_app = *app.add_subcommand("load", "Load devices from a capture, and let them run");
  AddDevices(load_app, load.devices);
  load_app.add_option("--in", load.in, "What godwit save wrote")->type_name("FILE")->required();
  AddCheck(load_app, load.checks);
  AddJson(load_app, load.json);
  load_app.footer(footer);

  InspectCommand inspect;
  CLI::App& inspect_app = *app.add_subcommand(
      "inspect", "List what is in a capture, or in a file of one device's state");
  inspect_app.add_option("FILE", inspect.file, "The file")->type_name("")->required();
  inspect_app
      .add_option("--as", inspect.as,
                  "What it is, instead of finding out; with --records, what the streams inside a "
                  "capture are")
      ->check(WrongFormat)
      ->type_name(
          absl::StrCat(absl::StrReplaceAll(StreamCheckProfiles(), {{", ", "|"}}), "|capture"));
  inspect_app.add_flag("--records", inspect.records,
                       "Of a capture also the records of the streams inside");
  AddJson(inspect_app, inspect.json);
  inspect_app.footer(
      "Exit code: 0 done; 1 failed, or something is wrong in the file; 2 wrong usage. In the list, "
      "!\n"
      "marks what is damaged, cut off or such as its driver would refuse.");

  KeygenCommand keygen;
  CLI::App& keygen_app = *app.add_subcommand(
      "keygen", "Make a CA with a certificate for each side, or a pre-shared key, to try it with");
  keygen_app.add_option("--out", keygen.out, "The folder for them; no file in it is overwritten")
      ->type_name("DIR")
      ->required();
  keygen_app.add_flag("--psk", keygen.psk, "A pre-shared key");
  keygen_app
      .add_option(
          "--name", keygen.names,
          "A DNS name or address of the hosts, which the certificates then have; repeat for "
          "more (default: localhost, 127.0.0.1, ::1)")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->excludes("--psk");
  keygen_app.footer("Exit code: 0 done; 1 failed, and no file is made; 2 wrong usage.");

  PingCommand ping;
  CLI::App& ping_app = *app.add_subcommand(
      "ping", "Check the way to a host on which godwit receive waits, without moving a device");
  ping_app.add_option("--to", ping.to, "Where godwit receive listens")
      ->check(WrongDestination)
      ->type_name("ADDR:PORT")
      ->required();
  AddTrust(ping_app, ping.trust,
           "The name or address that the target's certificate must have (default: the host in "
           "--to)");
  AddAskedFor(ping_app, ping.transport, ping.lanes, ping.packet_bytes);
  AddRdmaDevice(ping_app, ping.rdma_device);
  ping_app.add_option("--time", ping.time, "How long packets flow, for the rate; up to 10s")
      ->check(WrongPingTime)
      ->type_name("DURATION")
      ->capture_default_str();
  AddJson(ping_app, ping.json);
  ping_app.footer(
      "Connects, proves and checks what a session would, makes its lanes and fills them with "
      "zeros\n"
      "for a while. The target goes on waiting for its source.\n"
      "Exit code: 0 done: devices could move there; 1 failed, and it says why; 2 wrong usage.");

  DevicesCommand devices;
  CLI::App& devices_app = *app.add_subcommand(
      "devices", "List this host's VFIO devices with what they can do, and its RDMA devices");
  AddJson(devices_app, devices.json);
  devices_app.footer("Exit code: 0 done, whether there are any or not; 1 failed; 2 wrong usage.");

  DoctorCommand doctor;
  CLI::App& doctor_app = *app.add_subcommand(
      "doctor", "Check whether this host is fit to move devices, and say what would make it so");
  AddJson(doctor_app, doctor.json);
  doctor_app.footer(
      "A line a check: good; advice, where it could be better; missing, where something can't "
      "work. "
      "Exit\ncode: 0 nothing is missing; 1 something is, or it failed; 2 wrong usage.");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and --version come this way too, with exit code 0.
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  if (loopback_app.parsed()) return RunLoopback(loopback);
  if (send_app.parsed()) return RunSend(send);
  if (receive_app.parsed()) return RunReceive(receive);
  if (save_app.parsed()) return RunSave(save);
  if (load_app.parsed()) return RunLoad(load);
  if (inspect_app.parsed()) return RunInspect(inspect);
  if (keygen_app.parsed()) return RunKeygen(keygen);
  if (doctor_app.parsed()) return RunDoctor(doctor);
  if (ping_app.parsed()) return RunPing(ping);
  return RunDevices(devices);
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out, and libraries have bugs.
  try {
    return godwit::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "godwit: error: unexpected: %s\n", error.what());
    return godwit::kExitFailed;
  }
}
