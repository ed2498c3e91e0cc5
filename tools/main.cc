// The godwit command: options in, one subcommand out.

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>
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

#include "engine/packet.h"
#include "godwit/stream_check.h"
#include "tools/command_options.h"
#include "tools/commands.h"
#include "tools/report.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

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
      "2m,\nfor --fixed-downtime also 20us.\n"
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
  AddCrc(loopback_app, loopback.crc);
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
  AddCrc(send_app, send.crc);
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
  AddCrc(receive_app, receive.crc);
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
