#include "tests/tools/lies.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <utility>

#include "base/check.h"

namespace godwit {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The schema, as protoc has read control.proto: the library's own code has it without reflection.
class Schema {
 public:
  Schema() {
    std::ifstream file(GODWIT_CONTROL_SCHEMA, std::ios::binary);
    google::protobuf::FileDescriptorSet set;
    GODWIT_CHECK(set.ParseFromIstream(&file) && set.file_size() == 1);
    const auto* const built = pool_.BuildFile(set.file(0));
    GODWIT_CHECK(built != nullptr);
    prototype_ = factory_.GetPrototype(built->FindMessageTypeByName("ControlMessage"));
  }
  std::unique_ptr<Message> Copy(const control::ControlMessage& right) const {
    std::unique_ptr<Message> copy(prototype_->New());
    GODWIT_CHECK(copy->ParseFromString(right.SerializeAsString()));
    return copy;
  }

 private:
  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_{&pool_};
  const Message* prototype_ = nullptr;
};

const Schema& TheSchema() {
  static const Schema schema;
  return schema;
}

bool IsNumber(const FieldDescriptor& field) {
  return field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_STRING;
}

// One field of one message, at `index` where it is a list.
struct Place {
  Message* message;
  const FieldDescriptor* field;
  int index;  // -1: no list

  uint64_t Number() const {
    const auto& r = *message->GetReflection();
    const bool list = index >= 0;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_UINT32:
        return list ? r.GetRepeatedUInt32(*message, field, index) : r.GetUInt32(*message, field);
      case FieldDescriptor::CPPTYPE_UINT64:
        return list ? r.GetRepeatedUInt64(*message, field, index) : r.GetUInt64(*message, field);
      case FieldDescriptor::CPPTYPE_BOOL:
        return r.GetBool(*message, field) ? 1 : 0;
      case FieldDescriptor::CPPTYPE_ENUM:
        return static_cast<uint64_t>(list ? r.GetRepeatedEnumValue(*message, field, index)
                                          : r.GetEnumValue(*message, field));
      default:
        GODWIT_CHECK(false);  // a type that control.proto did not have: teach it here
    }
    return 0;
  }
  // As much of it as the field has bits.
  void Set(uint64_t value) const {
    const auto& r = *message->GetReflection();
    const bool list = index >= 0;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_UINT32:
        return list ? r.SetRepeatedUInt32(message, field, index, static_cast<uint32_t>(value))
                    : r.SetUInt32(message, field, static_cast<uint32_t>(value));
      case FieldDescriptor::CPPTYPE_UINT64:
        return list ? r.SetRepeatedUInt64(message, field, index, value)
                    : r.SetUInt64(message, field, value);
      case FieldDescriptor::CPPTYPE_BOOL:
        return r.SetBool(message, field, value != 0);
      default:
        return list ? r.SetRepeatedEnumValue(message, field, index, static_cast<int>(value))
                    : r.SetEnumValue(message, field, static_cast<int>(value));
    }
  }
};

class Liar {
 public:
  Liar(const control::ControlMessage& right, std::set<std::string>& fields)
      : message_(TheSchema().Copy(right)), fields_(fields) {}

  std::vector<Lie> All() {
    const auto* const set = message_->GetReflection()->GetOneofFieldDescriptor(
        *message_, message_->GetDescriptor()->oneof_decl(0));
    GODWIT_CHECK(set != nullptr);
    About(message_->GetReflection()->MutableMessage(message_.get(), set), set->name());
    return std::move(lies_);
  }

 private:
  void Tell(const std::string& what) { lies_.push_back({what, message_->SerializeAsString()}); }

  // Leaves `message` as it was.
  void About(Message* message, const std::string& name) {
    for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor* const field = message->GetDescriptor()->field(i);
      const std::string at = absl::StrCat(name, ".", field->name());
      if (IsNumber(*field)) fields_.insert(at);
      if (field->is_repeated()) {
        AboutList(message, field, at);
      } else if (IsNumber(*field)) {
        AboutNumber({message, field, -1}, at);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        AboutText(message, field, at);
      } else {
        const bool was_set = message->GetReflection()->HasField(*message, field);
        About(message->GetReflection()->MutableMessage(message, field), at);
        if (!was_set) Tell(absl::StrCat(at, " is there"));
        if (!was_set) message->GetReflection()->ClearField(message, field);
      }
    }
  }
  void AboutNumber(const Place& place, const std::string& at) {
    const uint64_t right = place.Number();
    std::set<uint64_t> told = {right};
    for (const uint64_t wrong :
         {uint64_t{0}, uint64_t{1}, right + 1, right - 1, uint64_t{0x7fffffff},
          uint64_t{0xffffffff}, uint64_t{std::numeric_limits<int64_t>::max()}, ~uint64_t{0}}) {
      place.Set(wrong);
      const uint64_t said = place.Number();
      if (told.insert(said).second) Tell(absl::StrCat(at, " = ", said));
    }
    place.Set(right);
  }
  void AboutText(Message* message, const FieldDescriptor* field, const std::string& at) {
    const auto& r = *message->GetReflection();
    const std::string right = r.GetString(*message, field);
    const auto tell = [&](const std::string& text) {
      if (text == right) return;
      r.SetString(message, field, text);
      Tell(absl::StrCat(at, " has ", text.size(), " bytes"));
    };
    tell("");
    tell(right + "x");
    tell(right.substr(0, right.size() - std::min<size_t>(1, right.size())));
    tell(std::string(60'000, 'x'));
    if (!right.empty()) tell(std::string(right.size(), '\1'));
    r.SetString(message, field, right);
  }
  void AboutList(Message* message, const FieldDescriptor* field, const std::string& at) {
    const auto& r = *message->GetReflection();
    const int size = r.FieldSize(*message, field);
    const auto add = [&] {
      const Place last = {message, field, r.FieldSize(*message, field)};
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        Message* const added = r.AddMessage(message, field);
        if (last.index > 0) added->CopyFrom(r.GetRepeatedMessage(*message, field, 0));
        return;
      }
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32) r.AddUInt32(message, field, 1);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) r.AddUInt64(message, field, 1);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) r.AddEnumValue(message, field, 1);
      GODWIT_CHECK(r.FieldSize(*message, field) == last.index + 1);
    };
    const auto shorten = [&](int to) {
      while (r.FieldSize(*message, field) > to) r.RemoveLast(message, field);
    };
    add();
    Tell(absl::StrCat(at, " has one more"));
    // Also of one that was not there.
    for (const int i : std::set<int>{0, size}) {
      const std::string element = absl::StrCat(at, "[", i, "]");
      if (IsNumber(*field)) {
        AboutNumber({message, field, i}, element);
      } else {
        About(r.MutableRepeatedMessage(message, field, i), at);
      }
    }
    constexpr int kMany = 1'000;
    while (r.FieldSize(*message, field) < kMany) add();
    Tell(absl::StrCat(at, " has ", kMany));
    shorten(size);
    if (size == 0) return;
    const std::unique_ptr<Message> right(message->New());
    right->CopyFrom(*message);
    shorten(0);
    Tell(absl::StrCat(at, " has none"));
    message->CopyFrom(*right);
  }

  const std::unique_ptr<Message> message_;
  std::set<std::string>& fields_;
  std::vector<Lie> lies_;
};

}  // namespace

std::vector<Lie> LiesAbout(const control::ControlMessage& right, std::set<std::string>& fields) {
  return Liar(right, fields).All();
}

}  // namespace godwit
