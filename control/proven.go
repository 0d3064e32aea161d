package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc/peer"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ca"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/pages"
)

// accountKey is the key of a stream's context under which the account is that its credentials
// prove.
type accountKey struct{}

// Context says whose stream it is.
func (k *knownStream) Context() context.Context {
	return context.WithValue(k.ServerStream.Context(), accountKey{}, k.account)
}

// accountOf is the account that a stream's credentials prove, "" if there are none.
func accountOf(ctx context.Context) string {
	account, _ := ctx.Value(accountKey{}).(ca.Account)
	return account.String()
}

// proven reports whether a stream is of somebody who may be the node that it names: it has
// credentials, against which the node is checked, or it comes from within this pod or machine. In
// plain text over a network everybody may claim everything.
func proven(ctx context.Context) bool {
	if ctx.Value(accountKey{}) != nil {
		return true
	}
	from, ok := peer.FromContext(ctx)
	return ok && (from.Addr.Network() == "unix" || pages.IsInside(from.Addr.String()))
}

// mayJoin is why a proxy may not become an endpoint of a WorkloadGroup: others would send it what
// is for the group.
func mayJoin(ctx context.Context, p *mesh.Proxy, group *config.Config) error {
	if p.Anonymous {
		return fmt.Errorf("auto-registration: proxy %s asks in plain text, where nobody proves who it is: %s is joined on the secure port", p.Name, group.Key)
	}
	spec, _ := group.Spec.(*networking.WorkloadGroup)
	want := spec.GetTemplate().GetServiceAccount()
	if account, known := ctx.Value(accountKey{}).(ca.Account); known && want != "" && account.Name != want {
		return fmt.Errorf("auto-registration: the credentials are of account %s, not of %s, that of %s", account.Name, want, group.Key)
	}
	return nil
}
