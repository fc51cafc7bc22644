// Strict reading of JSON files: a missing key, a wrong type or a number out of range is a Kind::bundle error that names
// its place.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace ris {

// A value inside a document, with the path that leads to it. The document must outlive it.
class JsonValue {
public:
    JsonValue(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

    JsonValue at(const std::string& key) const;
    bool has(const std::string& key) const;  // present and not null
    bool is_text() const { return value_->is_string(); }

    std::string text() const;
    std::string choice(const std::vector<std::string>& options) const;
    std::int64_t integer() const;
    double number() const;
    bool boolean() const;
    std::vector<JsonValue> items() const;
    std::vector<std::pair<std::string, JsonValue>> members() const;

    [[noreturn]] void refuse(const std::string& problem) const;

private:
    const nlohmann::json* value_;
    std::string place_;  // such as `manifest.json: graphs.text_encoder.inputs[0]`
};

// Parses a document; `name` is what messages call it.
nlohmann::json parse_json(const std::string& text, const std::string& name);

}  // namespace ris
