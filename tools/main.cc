// The godwit command: options in, one subcommand out.

#include <absl/strings/str_cat.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <map>
#include <string>

#include "engine/packet.h"
#include "tools/commands.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

const std::map<std::string, TransportKind> kTransports = {
    {"auto", TransportKind::kAuto}, {"tcp", TransportKind::kTcp}, {"verbs", TransportKind::kVerbs}};

void AddJson(CLI::App& app, std::string& json) {
  app.add_option("--json", json, "Write the result as JSON to FILE; - is standard output")
      ->type_name("FILE");
}

void AddTransport(CLI::App& app, TransportKind& transport, std::string& packet_bytes,
                  uint32_t& lanes, const char* transport_default) {
  app.add_option("--transport", transport,
                 "How packets travel: tcp, verbs (RDMA queue pairs) or auto (verbs where both "
                 "hosts have a port, else tcp)")
      ->transform(CLI::CheckedTransformer(kTransports).description(""))
      ->type_name("tcp|verbs|auto")
      ->default_str(transport_default);
  app.add_option("--lanes", lanes, "Connections or queue pairs side by side")
      ->check(CLI::Range(1U, kLanesMax).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--packet-bytes", packet_bytes, "Most device state in one packet")
      ->type_name("SIZE")
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

int Main(int argc, char** argv) {
  auto logger = spdlog::stderr_logger_mt("godwit");
  logger->set_pattern("godwit: %l: %v");
  spdlog::set_default_logger(logger);
  // A peer that is gone is an error code, not the end of the process.
  ::signal(SIGPIPE, SIG_IGN);

  CLI::App app{
      "Moves the state of VFIO devices (NIC functions, GPUs, accelerators) from one host to\n"
      "another while their virtual machine stands still, over RDMA or TCP.\n\n"
      "On the target host:  godwit receive --listen 0.0.0.0:7471 --device vfio:0000:01:00.1\n"
      "On the source host:  godwit send --to target:7471 --device vfio:0000:01:00.1\n"
      "To see it work:      godwit loopback",
      "godwit"};
  app.set_version_flag("--version", absl::StrCat("godwit ", GODWIT_VERSION));
  app.require_subcommand(1);
  const std::string footer = absl::StrCat(
      "SPEC names a device:\n", DeviceSpecHelp(),
      "\nSIZE is a number with B, KiB, MiB, GiB or TiB, as in 64MiB.\n"
      "Exit code: 0 done; 1 failed, and the devices are back where they were; 2 wrong usage;\n"
      "3 contact was lost at the handover: look at both hosts before you start either device.");
  app.footer(footer);

  LoopbackCommand loopback;
  CLI::App& loopback_app = *app.add_subcommand(
      "loopback", "Move software devices between two processes on this machine, and check them");
  loopback_app.add_option("--devices", loopback.devices, "How many")
      ->check(CLI::Range(1U, kDevicesMax).description(""))
      ->type_name("N")
      ->capture_default_str();
  loopback_app.add_option("--size", loopback.size, "State of each device")
      ->type_name("SIZE")
      ->capture_default_str();
  loopback_app
      .add_option("--seed", loopback.seed, "The first device's content; the next has S + 1, …")
      ->type_name("S")
      ->capture_default_str();
  AddTransport(loopback_app, loopback.transport, loopback.packet_bytes, loopback.lanes, "tcp");
  AddJson(loopback_app, loopback.json);

  SendCommand send;
  CLI::App& send_app =
      *app.add_subcommand("send", "Move devices of this host to a host that runs godwit receive");
  send_app.add_option("--to", send.to, "Where godwit receive listens")
      ->type_name("ADDR:PORT")
      ->required();
  AddDevices(send_app, send.devices);
  AddTransport(send_app, send.transport, send.packet_bytes, send.lanes, "auto");
  AddJson(send_app, send.json);
  send_app.footer(footer);

  ReceiveCommand receive;
  CLI::App& receive_app =
      *app.add_subcommand("receive", "Wait for one godwit send, take its devices, and exit");
  receive_app.add_option("--listen", receive.listen, "Address and port; port 0 takes a free one")
      ->type_name("ADDR:PORT")
      ->required();
  AddDevices(receive_app, receive.devices);
  AddJson(receive_app, receive.json);
  receive_app
      .add_option("--port-fd", receive.port_fd,
                  "Write the port number to this file descriptor, and close it, once it listens")
      ->type_name("FD");
  receive_app.footer(footer);

  DevicesCommand devices;
  CLI::App& devices_app = *app.add_subcommand(
      "devices", "List this host's VFIO devices with what they can do, and its RDMA devices");
  AddJson(devices_app, devices.json);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and --version come this way too, with exit code 0.
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  if (loopback_app.parsed()) return RunLoopback(loopback);
  if (send_app.parsed()) return RunSend(send);
  if (receive_app.parsed()) return RunReceive(receive);
  return RunDevices(devices);
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) { return godwit::Main(argc, argv); }
