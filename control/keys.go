package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/jwks"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// TokenOptions say how the keys of issuers of tokens are fetched.
type TokenOptions struct {
	// Fetcher is who fetches them: "istiod" (also "" and "false"); "hybrid" (also "true"),
	// proxies where they have a cluster for the place; "envoy", proxies alone.
	Fetcher string
	Refresh time.Duration  // 0 is 20 minutes
	Blocked []netip.Prefix // addresses that are not called for keys
}

func (o TokenOptions) remote() (mesh.RemoteKeys, error) {
	switch o.Fetcher {
	case "", "false", "istiod":
		return mesh.KeysByControlPlane, nil
	case "true", "hybrid":
		return mesh.KeysByKnownProxies, nil
	case "envoy":
		return mesh.KeysByProxies, nil
	}
	return 0, fmt.Errorf("keys of tokens cannot be fetched by %q: want istiod, hybrid or envoy", o.Fetcher)
}

// firstKeys bounds how long the first Snapshot waits for keys, so that proxies that have them
// do not lose them to a control plane that starts.
const firstKeys = 3 * time.Second

// tokenKeys are the keys that tokens are checked with.
type tokenKeys struct {
	remote  mesh.RemoteKeys
	fetcher *jwks.Fetcher
}

func newTokenKeys(o TokenOptions, log *slog.Logger) (*tokenKeys, error) {
	remote, err := o.remote()
	if err != nil {
		return nil, err
	}
	return &tokenKeys{remote, jwks.New(jwks.Options{Refresh: o.Refresh, Client: jwks.NewClient(o.Blocked), Log: log})}, nil
}

// give has a new Snapshot have the keys that are there, and those fetched that it wants.
func (k *tokenKeys) give(ctx context.Context, next *mesh.Snapshot, first bool) {
	wanted := next.KeySources()
	maps.Copy(wanted, bundleSources(next.MeshConfig))
	k.fetcher.Want(wanted)
	if first && len(wanted) > 0 {
		k.fetcher.Await(ctx, firstKeys)
	}
	next.Keys = k.fetcher.Keys()
}

// sameKeys reports whether proxies get the same keys from both.
func sameKeys(a, b *mesh.Snapshot) bool { return maps.Equal(a.Keys, b.Keys) }

// problems are rules whose keys were not there when they were last fetched.
func (k *tokenKeys) problems(snap *mesh.Snapshot) []Problem {
	var list []Problem
	failures := k.fetcher.Failures()
	if len(failures) == 0 {
		return nil
	}
	for _, a := range snap.AllRequestAuthentications() {
		for i, r := range a.Spec.GetJwtRules() {
			source := mesh.KeySourceOf(r)
			err := failures[source]
			if err == nil {
				continue
			}
			list = append(list, keyProblem(a.Config, i, r, err, snap.Keys[source] != ""))
		}
	}
	return list
}

func keyProblem(o *config.Config, i int, r *security.JWTRule, err error, kept bool) Problem {
	p := Problem{Object: o.Key.String(), Field: fmt.Sprintf("jwtRules[%d].jwksUri", i), Place: o.Source.String(), Severity: config.Error.String(),
		Message: fmt.Sprintf("the keys of issuer %q cannot be fetched, so that none of its tokens is valid: %v", r.GetIssuer(), err)}
	if r.GetJwksUri() == "" {
		p.Field = fmt.Sprintf("jwtRules[%d].issuer", i)
	}
	if kept {
		p.Severity = config.Warning.String()
		p.Message = fmt.Sprintf("the keys of issuer %q cannot be fetched, those that were are used: %v", r.GetIssuer(), err)
	}
	return p
}
