#include "tools/metrics_server.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/status_macros.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Where no connection can be taken (too many open files): how long until it is tried again.
constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

struct MetricsServer::Client {
  enum class Stage { kRequest, kResponse, kIgnoring };
  UniqueFd socket;
  SteadyClock::time_point end;  // of its time
  Stage stage = Stage::kRequest;
  std::array<char, kRequestBytesMax> request;
  size_t request_bytes = 0;
  std::string response;
  size_t response_bytes = 0;  // written
  size_t ignored_bytes = 0;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Listen(absl::string_view address) {
  GODWIT_ASSIGN_OR_RETURN(const TcpAddress parsed, ParseTcpAddress(address));
  GODWIT_ASSIGN_OR_RETURN(UniqueFd listener, ListenTcp(parsed));
  GODWIT_ASSIGN_OR_RETURN(const uint16_t port, LocalPort(listener.get()));
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  return std::unique_ptr<MetricsServer>(
      new MetricsServer(parsed.host, std::move(listener), port, std::move(stop)));
}

MetricsServer::MetricsServer(std::string host, UniqueFd listener, uint16_t port, Notifier stop)
    : host_(std::move(host)), listener_(std::move(listener)), port_(port), stop_(std::move(stop)) {}

MetricsServer::~MetricsServer() { Stop(); }

std::string MetricsServer::url() const {
  return absl::StrCat("http://", TcpAddress{host_, port_}.ToString(), "/metrics");
}

void MetricsServer::Start(std::function<std::string()> text) {
  text_ = std::move(text);
  thread_ = std::thread([this] { Run(); });
}

void MetricsServer::Stop() {
  if (!thread_.joinable()) return;
  stop_.Notify();
  thread_.join();
  clients_.clear();
}

void MetricsServer::Run() {
  while (true) {
    // 1. What to wait for: the end, a connection where there is room for one, each client.
    auto now = SteadyClock::now();
    pollfd fds[2 + kClientsMax] = {{stop_.fd(), POLLIN, 0}, {-1, POLLIN, 0}};
    auto wake_at = SteadyClock::time_point::max();
    if (clients_.size() < kClientsMax) {
      if (now >= accept_from_) {
        fds[1].fd = listener_.get();
      } else {
        wake_at = accept_from_;
      }
    }
    const size_t clients = clients_.size();
    for (size_t i = 0; i < clients; ++i) {
      const bool writes = clients_[i]->stage == Client::Stage::kResponse;
      fds[2 + i] = {clients_[i]->socket.get(), static_cast<short>(writes ? POLLOUT : POLLIN), 0};
      wake_at = std::min(wake_at, clients_[i]->end);
    }

    // 2. Wait, and see whether that is all.
    int wait_ms = -1;
    if (wake_at != SteadyClock::time_point::max()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(wake_at - now).count();
      wait_ms = static_cast<int>(std::max<int64_t>(0, left));
    }
    ::poll(fds, 2 + clients, wait_ms);
    if (fds[0].revents != 0) return;

    // 3. Clients go on, or go.
    now = SteadyClock::now();
    for (size_t i = 0; i < clients; ++i) {
      Client& client = *clients_[i];
      const bool stays = now < client.end && (fds[2 + i].revents == 0 || Serve(client));
      if (!stays) clients_[i].reset();
    }
    clients_.erase(std::remove(clients_.begin(), clients_.end(), nullptr), clients_.end());

    // 4. One more.
    if (fds[1].revents != 0) Accept();
  }
}

void MetricsServer::Accept() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const auto now = SteadyClock::now();
  if (!socket.valid()) {
    accept_from_ = now + kAcceptPause;
    return;
  }
  auto client = std::make_unique<Client>();
  client->socket = std::move(socket);
  client->end = now + kClientTime;
  clients_.push_back(std::move(client));
}

bool MetricsServer::Serve(Client& client) {
  switch (client.stage) {
    case Client::Stage::kRequest:
      return ReadRequest(client);
    case Client::Stage::kResponse:
      return WriteResponse(client);
    case Client::Stage::kIgnoring:
      return Ignore(client);
  }
  return false;
}

bool MetricsServer::ReadRequest(Client& client) {
  const ssize_t got = ::recv(client.socket.get(), client.request.data() + client.request_bytes,
                             kRequestBytesMax - client.request_bytes, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  client.request_bytes += static_cast<size_t>(got);
  const absl::string_view request(client.request.data(), client.request_bytes);
  const bool whole = absl::StrContains(request, "\r\n\r\n") || absl::StrContains(request, "\n\n");
  // A longer one is answered by what has come of it.
  if (!whole && client.request_bytes < kRequestBytesMax) return true;
  client.response = Respond(request);
  client.stage = Client::Stage::kResponse;
  return WriteResponse(client);
}

std::string MetricsServer::Respond(absl::string_view request) const {
  const absl::string_view line = request.substr(0, request.find_first_of("\r\n"));
  absl::string_view rest = line;
  const bool found = absl::ConsumePrefix(&rest, "GET /metrics") &&
                     (absl::StartsWith(rest, " HTTP/1.") ||
                      (absl::StartsWith(rest, "?") && absl::StrContains(rest, " HTTP/1.")));
  const std::string body = found ? text_() : "there is /metrics only\n";
  return absl::StrCat("HTTP/1.1 ", found ? "200 OK" : "404 Not Found",
                      "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8"
                      "\r\nContent-Length: ",
                      body.size(), "\r\nConnection: close\r\n\r\n", body);
}

bool MetricsServer::WriteResponse(Client& client) {
  while (client.response_bytes < client.response.size()) {
    const ssize_t put = ::send(client.socket.get(), client.response.data() + client.response_bytes,
                               client.response.size() - client.response_bytes, MSG_NOSIGNAL);
    if (put < 0) return errno == EAGAIN || errno == EINTR;
    client.response_bytes += static_cast<size_t>(put);
  }
  // Closing with unread bytes would reset the connection and could take the answer with it.
  ::shutdown(client.socket.get(), SHUT_WR);
  client.stage = Client::Stage::kIgnoring;
  return Ignore(client);
}

bool MetricsServer::Ignore(Client& client) {
  while (client.ignored_bytes < kIgnoredBytesMax) {
    const ssize_t got = ::recv(client.socket.get(), client.request.data(), kRequestBytesMax, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    client.ignored_bytes += static_cast<size_t>(got);
  }
  return false;
}

}  // namespace godwit
