// A protoc plugin for the service code of C# and Objective-C: `--grpc_opt=csharp` or `--grpc_opt=objective_c`.
//
// Debian has gRPC's generators for both in libgrpc_plugin_support, but neither the programs nor the headers, so the
// functions are declared here as gRPC 1.51 has them.

#include <google/protobuf/compiler/code_generator.h>
#include <google/protobuf/compiler/plugin.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>

#include <cctype>
#include <memory>
#include <string>

using google::protobuf::FileDescriptor;
using google::protobuf::ServiceDescriptor;

namespace grpc_csharp_generator {
std::string GetServices(const FileDescriptor* file, bool generate_client, bool generate_server, bool is_internal);
}

namespace grpc_objective_c_generator {
struct Parameters {
  bool no_v1_compatibility;
};
std::string GetProtocol(const ServiceDescriptor* service, const Parameters& parameters);
std::string GetInterface(const ServiceDescriptor* service, const Parameters& parameters);
std::string GetSource(const ServiceDescriptor* service, const Parameters& parameters);
}  // namespace grpc_objective_c_generator

namespace {

class Services : public google::protobuf::compiler::CodeGenerator {
 public:
  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }

  bool Generate(const FileDescriptor* file, const std::string& language,
                google::protobuf::compiler::GeneratorContext* context, std::string* error) const override {
    std::string path = file->name();
    path.resize(path.rfind('.'));
    std::string base = path.substr(path.rfind('/') + 1);
    base[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(base[0])));
    if (file->service_count() == 0) {
      return true;
    }
    if (language == "csharp") {
      write(context, base + "Grpc.cs", grpc_csharp_generator::GetServices(file, true, true, false));
    } else if (language == "objective_c") {
      const grpc_objective_c_generator::Parameters both{false};
      std::string header, source;
      for (int n = 0; n < file->service_count(); ++n) {
        header += grpc_objective_c_generator::GetProtocol(file->service(n), both);
        header += grpc_objective_c_generator::GetInterface(file->service(n), both);
        source += grpc_objective_c_generator::GetSource(file->service(n), both);
      }
      write(context, base + ".pbrpc.h", header);
      write(context, base + ".pbrpc.m", source);
    } else {
      *error = "no generator for " + language;
      return false;
    }
    return true;
  }

 private:
  static void write(google::protobuf::compiler::GeneratorContext* context, const std::string& name,
                    const std::string& text) {
    std::unique_ptr<google::protobuf::io::ZeroCopyOutputStream> file(context->Open(name));
    google::protobuf::io::CodedOutputStream(file.get()).WriteString(text);
  }
};

}  // namespace

int main(int argc, char* argv[]) {
  const Services services;
  return google::protobuf::compiler::PluginMain(argc, argv, &services);
}
