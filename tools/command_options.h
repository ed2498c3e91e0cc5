// The options of the subcommands: groups that several share, and what is wrong with a text.
#ifndef GODWIT_TOOLS_COMMAND_OPTIONS_H_
#define GODWIT_TOOLS_COMMAND_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/session.h"
#include "tools/commands.h"

namespace godwit {

// Validators for CLI11: what is wrong with the text, or nothing.
std::string WrongSize(const std::string& text);
std::string WrongAddress(const std::string& text);
std::string WrongDestination(const std::string& text);
std::string WrongPortFd(const std::string& text);
std::string WrongFormat(const std::string& text);
std::string WrongPingTime(const std::string& text);

inline constexpr const char* kTraceHelp =
    "Write a time line of the session to FILE, for Perfetto or chrome://tracing";

// Each adds options whose values go where it says. `about` is the option's help.
void AddJson(CLI::App& app, std::string& json);
void AddTrace(CLI::App& app, std::string& trace, const char* about);
void AddMetrics(CLI::App& app, std::string& metrics);
void AddPacketBytes(CLI::App& app, std::string& packet_bytes,
                    const char* about = "Most device state in one packet");
// What a source asks for.
void AddAskedFor(CLI::App& app, TransportKind& transport, uint32_t& lanes,
                 std::string& packet_bytes);
// What a target accepts.
void AddAccepted(CLI::App& app, TransportKind& transport, uint32_t& lanes,
                 std::string& packet_bytes);
CLI::Option* AddDuration(CLI::App& app, const char* name, std::string& text, const char* help);
void AddPrecopy(CLI::App& app, PrecopyArguments& precopy);
void AddCheck(CLI::App& app, std::vector<std::string>& checks);
void AddRdmaDevice(CLI::App& app, std::string& rdma_device);
void AddCrc(CLI::App& app, bool& crc);
void AddSpin(CLI::App& app, uint32_t& spin_us);
void AddDevices(CLI::App& app, std::vector<std::string>& devices);
void AddTrust(CLI::App& app, TrustOptions& trust, const char* about_peer_name);

}  // namespace godwit

#endif  // GODWIT_TOOLS_COMMAND_OPTIONS_H_
