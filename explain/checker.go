package explain

import (
	"context"
	"slices"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy"
)

// A Problem is a resource that a proxy would refuse, and why. Error is in the words of the
// NACK that it would send.
type Problem struct {
	TypeURL, Name string
	Err           error
}

// A Checker compiles resources with the proxy's own decoders before they are sent.
type Checker struct{}

// Check finds what a proxy of that node would refuse of the resources, in the order in
// which it would meet them. What is fine is not told of; nothing is sent or opened. It
// returns early, with what was found, when ctx ends.
func (Checker) Check(ctx context.Context, node *corepb.Node, r proxy.Resources) []Problem {
	if ctx.Err() != nil {
		return nil
	}
	m, err := proxy.NewModel(node, r)
	if err != nil {
		return []Problem{{Err: err}}
	}
	defer m.Close()
	var list []Problem
	for _, x := range m.Refused() {
		list = append(list, Problem(x))
	}
	return slices.Clip(list)
}
