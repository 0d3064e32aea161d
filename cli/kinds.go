package cli

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/lateen-mesh/lateen/install/cluster"
)

// A servedKind is a kind that an API serves.
type servedKind struct {
	group, kind, plural string
	objects             dynamic.ResourceInterface
}

// kinds are those that the API serves, lets list and that are wanted.
func (c *connection) kinds(api *cluster.Cluster, wanted func(group, kind string) bool) ([]servedKind, error) {
	rest, err := c.config()
	if err != nil {
		return nil, err
	}
	rest.QPS, rest.Burst = 50, 100 // dozens of kinds at once; the usual 5 a second would take the time of all else
	client, err := dynamic.NewForConfig(rest)
	if err != nil {
		return nil, err
	}
	served, err := api.API().Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("kinds that the API serves: %w", err)
	}
	var kinds []servedKind
	for _, list := range served {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "list") && wanted(version.Group, r.Kind) {
				kinds = append(kinds, servedKind{version.Group, r.Kind, r.Name, client.Resource(version.WithResource(r.Name))})
			}
		}
	}
	return kinds, nil
}

// pageSize is how many objects are asked for at once.
const pageSize = 500

// each hands the JSON of all objects of the kind to add.
func (k servedKind) each(ctx context.Context, add func(text []byte) error) error {
	for next := ""; ; {
		page, err := k.objects.List(ctx, metav1.ListOptions{Limit: pageSize, Continue: next})
		if err != nil {
			return err
		}
		for i := range page.Items {
			text, err := page.Items[i].MarshalJSON()
			if err != nil {
				return err
			}
			if err := add(text); err != nil {
				return err
			}
		}
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
}
