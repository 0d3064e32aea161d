package xds

import (
	"sort"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A TypeView is what the client holds of one type, for config_dump.
type TypeView struct {
	URL       string
	Version   string // last accepted version_info; "" in the delta form
	Resources []ResourceView
	// Error is the last NACK's text, "" when the last response was accepted.
	Error   string
	ErrorAt time.Time
}

// A ResourceView is one resource: what is in force and what was refused after it.
type ResourceView struct {
	Name    string
	Status  string // REQUESTED, DOES_NOT_EXIST, ACKED, NACKED, as client_status
	Version string
	Body    *anypb.Any // nil before the first accepted version, and for secrets
	Updated time.Time

	// FailedBody is nil when the last version was accepted.
	FailedBody    *anypb.Any
	FailedVersion string
	Error         string
	ErrorAt       time.Time
}

var statusNames = [...]string{stateRequested: "REQUESTED", stateAbsent: "DOES_NOT_EXIST", stateAcked: "ACKED", stateNacked: "NACKED"}

// View returns what the client holds, types in the order of the wire, resources by
// name. Bodies are shared and must not be changed.
func (c *Client) View() []TypeView {
	c.mu.Lock()
	defer c.mu.Unlock()
	var views []TypeView
	for _, t := range c.types {
		v := TypeView{URL: t.url, Version: t.version, Error: t.lastError, ErrorAt: t.lastErrorAt}
		for _, r := range t.named {
			v.Resources = append(v.Resources, r.view(t.url))
		}
		for _, x := range t.spaces {
			for _, r := range x.known {
				v.Resources = append(v.Resources, r.view(t.url))
			}
		}
		if t.all != nil {
			for _, r := range t.all.known {
				v.Resources = append(v.Resources, r.view(t.url))
			}
		}
		sort.Slice(v.Resources, func(i, j int) bool { return v.Resources[i].Name < v.Resources[j].Name })
		views = append(views, v)
	}
	return views
}

func (r *resource) view(url string) ResourceView {
	v := ResourceView{
		Name: r.name, Status: statusNames[r.state], Version: r.version, Body: r.body, Updated: r.updated,
		FailedBody: r.failed, FailedVersion: r.failedVersion, Error: r.failure, ErrorAt: r.failedAt,
	}
	if url == wellknown.SecretType {
		v.Body, v.FailedBody = nil, nil
	}
	return v
}
