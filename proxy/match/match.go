// Package match compiles the matchers of xDS: strings, headers, query parameters,
// paths, CIDR ranges and metadata values. Matching reads bytes and allocates nothing.
// Each matcher prints what it wants in a form fit for an explanation.
package match

import "google.golang.org/protobuf/types/known/structpb"

var _ *structpb.Value
