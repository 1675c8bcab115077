// Counts down with a client generated from proto/, over as many connections as it takes, and reads why a wrong
// request was refused.
//
// .ci/languages generates the code, compiles this, and kills the server in the middle.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "perennial/v1/countdown.grpc.pb.h"
#include "perennial/v1/errors.pb.h"

namespace v1 = perennial::v1;
using std::chrono::milliseconds;

namespace {

// Without a bound on the backoff, a channel can take half a minute to return after an outage.
std::shared_ptr<grpc::Channel> channel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// What the details of a status say: why the call failed, and when to try again.
struct Failure {
  std::optional<google::rpc::ErrorInfo> info;
  std::optional<milliseconds> retry_delay;
};

Failure failure(const grpc::Status& status) {
  Failure failure;
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) {
    return failure;
  }
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&info) && info.domain() == "perennial") {
      failure.info = info;
    } else if (detail.UnpackTo(&retry)) {
      failure.retry_delay =
          milliseconds(retry.retry_delay().seconds() * 1'000 + retry.retry_delay().nanos() / 1'000'000);
    }
  }
  return failure;
}

// How long to wait before the same request is sent with the last cursor, or nothing if that cannot help.
std::optional<milliseconds> retry_delay(const grpc::Status& status) {
  const Failure why = failure(status);
  if (why.info) {
    return why.retry_delay;
  }
  switch (status.error_code()) {
    // The transport or this library failed. This client cancels no call itself.
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::CANCELLED:
      return milliseconds(500);
    default:
      return std::nullopt;
  }
}

// Prints the numbers of a countdown, and the number of calls that it took.
int count_down(v1::CountdownService::Stub& countdowns) {
  v1::CountdownRequest request;
  request.set_start(3);
  // Numbers that are due while the connection is lost come late, and are not skipped.
  request.set_on_lag(v1::ON_LAG_BURST);
  for (int calls = 1;; ++calls) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    const auto reader = countdowns.Countdown(&context, request);
    v1::CountdownResponse response;
    while (reader->Read(&response)) {
      for (const auto& tick : response.ticks()) {
        std::cout << tick.remaining() << std::endl;
      }
      request.set_cursor(response.cursor());
    }
    const grpc::Status status = reader->Finish();
    if (status.ok()) {
      std::cout << calls << " calls" << std::endl;
      return EXIT_SUCCESS;
    }
    const auto delay = retry_delay(status);
    if (!delay) {
      std::cerr << status.error_message() << std::endl;
      return EXIT_FAILURE;
    }
    std::this_thread::sleep_for(*delay);
  }
}

// Whether an error has this reason, and is not to be tried again.
bool is_refused(const grpc::Status& status, v1::ErrorReason expected) {
  const Failure why = failure(status);
  v1::ErrorReason reason;
  if (why.info && why.info->domain() == "perennial" && v1::ErrorReason_Parse(why.info->reason(), &reason) &&
      reason == expected && !retry_delay(status)) {
    std::cout << v1::ErrorReason_Name(reason) << std::endl;
    return true;
  }
  std::cerr << "expected " << v1::ErrorReason_Name(expected) << ": " << status.error_message() << std::endl;
  return false;
}

bool are_wrong_requests_refused(v1::CountdownService::Stub& countdowns) {
  grpc::ClientContext without_target;
  const auto reader = countdowns.Countdown(&without_target, v1::CountdownRequest());
  v1::CountdownResponse response;
  while (reader->Read(&response)) {
  }
  if (!is_refused(reader->Finish(), v1::INVALID_FIELD)) {
    return false;
  }
  grpc::ClientContext without_name;
  v1::GetCountdownRequest request;
  request.set_name("missing");
  v1::GetCountdownResponse found;
  return is_refused(countdowns.GetCountdown(&without_name, request, &found), v1::COUNTDOWN_NOT_FOUND);
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 2) {
    std::cerr << "usage: countdown HOST:PORT" << std::endl;
    return EXIT_FAILURE;
  }
  const auto countdowns = v1::CountdownService::NewStub(channel(argv[1]));
  const int status = count_down(*countdowns);
  return status == EXIT_SUCCESS && are_wrong_requests_refused(*countdowns) ? EXIT_SUCCESS : EXIT_FAILURE;
}
