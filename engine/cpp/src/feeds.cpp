#include "feeds.hpp"

#include <map>
#include <string>

#include "errors.hpp"

namespace ris {
namespace {

std::string described(const TensorSpec& tensor) {
    std::string text = std::string(dtype_name(tensor.dtype)) + " (";
    for (const auto& side : tensor.shape) {
        if (text.back() != '(') text += ", ";
        text += side.index() == 0 ? std::to_string(std::get<0>(side)) : std::get<1>(side);
    }
    return text + ")";
}

std::string described(const Tensor& tensor) {
    std::string text = std::string(dtype_name(tensor.dtype)) + " (";
    for (const auto side : tensor.shape) {
        if (text.back() != '(') text += ", ";
        text += std::to_string(side);
    }
    return text + ")";
}

bool fits(const TensorSpec& expected, const Tensor& feed, std::map<std::string, std::int64_t>& sizes) {
    if (feed.dtype != expected.dtype || feed.shape.size() != expected.shape.size()) return false;
    for (std::size_t axis = 0; axis < feed.shape.size(); ++axis) {
        const auto& side = expected.shape[axis];
        const auto wanted = side.index() == 0 ? std::get<0>(side)
                                              : sizes.emplace(std::get<1>(side), feed.shape[axis]).first->second;
        if (feed.shape[axis] != wanted) return false;
    }
    return true;
}

void check_profile(const GraphSpec& spec, const std::string& name, const Tensor& feed) {
    if (!spec.engine) return;
    const auto profile = spec.engine->profiles.find(name);
    if (profile == spec.engine->profiles.end()) return;
    const auto& [least, largest] = profile->second;
    for (std::size_t axis = 0; axis < feed.shape.size(); ++axis) {
        if (feed.shape[axis] >= least[axis] && feed.shape[axis] <= largest[axis]) continue;
        throw Error(Kind::backend, spec.file.file + ": input " + name + " is " + described(feed) +
                                       "; the engine was compiled for sizes from " + std::to_string(least[axis]) +
                                       " to " + std::to_string(largest[axis]) + " on axis " + std::to_string(axis) +
                                       ". Pass less, or rebuild the bundle with a wider --profile.");
    }
}

}  // namespace

void check_feeds(const GraphSpec& spec, const Tensors& feeds) {
    std::map<std::string, std::int64_t> sizes;
    for (const auto& tensor : spec.inputs) {
        const auto feed = feeds.find(tensor.name);
        if (feed == feeds.end()) {
            throw Error(Kind::backend, spec.file.file + ": input " + tensor.name + " is missing. Rebuild the bundle.");
        }
        if (!fits(tensor, feed->second, sizes)) {
            throw Error(Kind::backend, spec.file.file + ": input " + tensor.name + " is " + described(feed->second) +
                                           "; expected " + described(tensor) + ", equal names being equal sizes.");
        }
        check_profile(spec, tensor.name, feed->second);
    }
    if (feeds.size() != spec.inputs.size()) {
        throw Error(Kind::backend, spec.file.file + " got " + std::to_string(feeds.size()) + " inputs; expected " +
                                       std::to_string(spec.inputs.size()) + ". Rebuild the bundle.");
    }
}

}  // namespace ris
