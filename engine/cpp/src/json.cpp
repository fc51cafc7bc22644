#include "json.hpp"

#include <algorithm>
#include <limits>

#include "errors.hpp"

namespace ris {

using nlohmann::json;

void JsonValue::refuse(const std::string& problem) const {
    throw Error(Kind::bundle, place_ + ": " + problem + ". Rebuild or re-copy the bundle.");
}

bool JsonValue::has(const std::string& key) const {
    if (!value_->is_object()) refuse(std::string("expected an object, got ") + value_->type_name());
    const auto found = value_->find(key);
    return found != value_->end() && !found->is_null();
}

JsonValue JsonValue::at(const std::string& key) const {
    if (!value_->is_object()) refuse(std::string("expected an object, got ") + value_->type_name());
    const auto found = value_->find(key);
    if (found == value_->end()) refuse("lacks the field " + key);
    return {*found, place_ + (place_.back() == ':' ? " " : ".") + key};
}

std::string JsonValue::text() const {
    if (!value_->is_string()) refuse(std::string("expected a string, got ") + value_->type_name());
    return value_->get<std::string>();
}

std::string JsonValue::choice(const std::vector<std::string>& options) const {
    auto given = text();
    if (std::find(options.begin(), options.end(), given) == options.end()) refuse("unknown value '" + given + "'");
    return given;
}

std::int64_t JsonValue::integer() const {
    if (!value_->is_number_integer()) refuse(std::string("expected a whole number, got ") + value_->type_name());
    if (value_->is_number_unsigned() && value_->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
        refuse("number too large");
    }
    return value_->get<std::int64_t>();
}

double JsonValue::number() const {
    if (!value_->is_number()) refuse(std::string("expected a number, got ") + value_->type_name());
    return value_->get<double>();
}

bool JsonValue::boolean() const {
    if (!value_->is_boolean()) refuse(std::string("expected true or false, got ") + value_->type_name());
    return value_->get<bool>();
}

std::vector<JsonValue> JsonValue::items() const {
    if (!value_->is_array()) refuse(std::string("expected an array, got ") + value_->type_name());
    std::vector<JsonValue> all;
    all.reserve(value_->size());
    for (const auto& item : *value_) all.emplace_back(item, place_ + "[" + std::to_string(all.size()) + "]");
    return all;
}

std::vector<std::pair<std::string, JsonValue>> JsonValue::members() const {
    if (!value_->is_object()) refuse(std::string("expected an object, got ") + value_->type_name());
    std::vector<std::pair<std::string, JsonValue>> all;
    for (const auto& [key, item] : value_->items()) all.emplace_back(key, JsonValue(item, place_ + " " + key));
    return all;
}

json parse_json(const std::string& text, const std::string& name) {
    try {
        return json::parse(text);
    } catch (const json::exception& error) {
        throw Error(Kind::bundle, name + " cannot be read: " + error.what() + ". Rebuild or re-copy the bundle.");
    }
}

}  // namespace ris
