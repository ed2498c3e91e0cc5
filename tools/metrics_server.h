// --metrics: answers HTTP's GET /metrics while a session runs.
#ifndef GODWIT_TOOLS_METRICS_SERVER_H_
#define GODWIT_TOOLS_METRICS_SERVER_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/notifier.h"
#include "godwit/unique_fd.h"

namespace godwit {

// Serves what a function says, a few clients at a time, each for a short time: whoever connects,
// and whatever they send or don't, memory is bounded and the session is not touched.
//
// Ownership: of its thread and sockets. Who made it calls Stop() before what `text` needs goes.
// Threads:   `text` is called on the server's own; all else on one.
// Blocking:  Stop() and the destructor wait for one round of the thread.
// Errors:    Listen()'s; after that a client that fails is dropped, and nobody is told.
class MetricsServer {
 public:
  static constexpr size_t kClientsMax = 8;  // more wait in the kernel's queue
  static constexpr size_t kRequestBytesMax = 4096;
  static constexpr size_t kIgnoredBytesMax = size_t{64} << 10;  // read after the answer
  static constexpr std::chrono::milliseconds kClientTime{2000};

  // `address` as ParseTcpAddress() takes it.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Listen(absl::string_view address);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  std::string url() const;  // "http://127.0.0.1:9471/metrics"
  void Start(std::function<std::string()> text);
  void Stop();

 private:
  struct Client;

  MetricsServer(std::string host, UniqueFd listener, uint16_t port, Notifier stop);
  void Run();
  void Accept();
  // Goes on with a client as far as that goes without waiting; false when it is done with.
  bool Serve(Client& client);
  bool ReadRequest(Client& client);
  bool WriteResponse(Client& client);
  static bool Ignore(Client& client);
  std::string Respond(absl::string_view request) const;

  const std::string host_;
  const UniqueFd listener_;
  const uint16_t port_;
  const Notifier stop_;
  std::function<std::string()> text_;
  // The thread's.
  std::vector<std::unique_ptr<Client>> clients_;
  std::chrono::steady_clock::time_point accept_from_{};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TOOLS_METRICS_SERVER_H_
