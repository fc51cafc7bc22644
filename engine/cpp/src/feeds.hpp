// Checking a run's inputs against the manifest.
#pragma once

#include "manifest.hpp"
#include "tensor.hpp"

namespace ris {

// Kind::backend where one is missing, superfluous, or of another dtype or shape; equal names are equal sizes. So where an
// engine was compiled for less or more.
void check_feeds(const GraphSpec& spec, const Tensors& feeds);

}  // namespace ris
