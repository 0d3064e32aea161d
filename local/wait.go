package local

import (
	"context"
	"io"

	"github.com/lateen-mesh/lateen/control"
)

// A Delivery is what a control plane tells of its proxies on their way to a generation.
type Delivery = control.Delivery

// A ProxyRefusal is what a proxy refused.
type ProxyRefusal = control.ProxyRefusal

// A Rotation is what a control plane tells of the roots of the mesh and of its proxies.
type Rotation = control.Rotation

// AskControl asks the control plane of a state directory for a page of at most most bytes; it
// answers within a few seconds.
func AskControl(ctx context.Context, dir, method, page string, most int64) ([]byte, error) {
	reply, err := callControl(ctx, dir, method, page)
	if err != nil {
		return nil, err
	}
	defer reply.Close()
	return io.ReadAll(io.LimitReader(reply, most))
}
