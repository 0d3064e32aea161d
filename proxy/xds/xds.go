// Package xds is the data plane's ADS client: it subscribes to resources,
// has each decoded by its owner, and answers ACK or NACK. One stream carries all
// types; after a lost connection it returns with back-off and what is in force stays.
package xds

import "google.golang.org/protobuf/types/known/anypb"

// A Type is one kind of resource and how its owner turns it into a compiled object.
// Decode's error refuses the resource; its text is what the control plane sees.
type Type[T any] struct {
	URL    string
	Decode func(name string, body *anypb.Any) (T, error)
}
