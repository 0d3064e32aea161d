package local

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"github.com/lateen-mesh/lateen/control"
)

// A Delivery is what a control plane tells of its proxies on their way to a generation.
type Delivery = control.Delivery

// A ProxyRefusal is what a proxy refused.
type ProxyRefusal = control.ProxyRefusal

// AskDelivery asks the control plane of a state directory for its page of deliveries, with a
// query as the page takes it; it answers within the query's timeout, which must be less than
// a few seconds.
func AskDelivery(ctx context.Context, dir string, query url.Values) (d Delivery, err error) {
	reply, err := askControl(ctx, dir, "/debug/wait?"+query.Encode())
	if err != nil {
		return d, err
	}
	defer reply.Close()
	return d, json.NewDecoder(io.LimitReader(reply, 64<<20)).Decode(&d)
}
