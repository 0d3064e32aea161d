package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	meshconfig "istio.io/api/mesh/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/lateen-mesh/lateen/control/analyze"
	"github.com/lateen-mesh/lateen/control/config"
)

// pageSize is how many objects are asked for at once.
const pageSize = 500

// readMesh adds the objects of the mesh that runs. Kinds that the user may not read are
// told of, and left out of the analysis.
func (a *analysis) readMesh(ctx context.Context, m *analyze.Mesh, errs io.Writer) error {
	rest, err := a.config()
	if err != nil {
		return err
	}
	api, _, err := a.open(ctx)
	if err != nil {
		return err
	}
	rest.QPS, rest.Burst = 50, 100 // dozens of kinds at once; the usual 5 a second would take the time of all else
	client, err := dynamic.NewForConfig(rest)
	if err != nil {
		return err
	}
	served, err := api.API().Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return fmt.Errorf("kinds that the API serves: %w", err)
	}
	for _, list := range served {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, r := range list.APIResources {
			kind := analyze.Resource{Group: version.Group, Kind: r.Kind}
			if !slices.Contains(r.Verbs, "list") || !slices.Contains(analyze.Resources(), kind) {
				continue
			}
			err := listKind(ctx, client.Resource(version.WithResource(r.Name)), m.AddObject)
			if apierrors.IsForbidden(err) {
				fmt.Fprintf(errs, "Warning: %s is not analyzed: %v\n", r.Name, err)
				m.Lacks(kind)
			} else if err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
	}
	return nil
}

// listKind hands the JSON of all objects of a kind to add.
func listKind(ctx context.Context, kind dynamic.ResourceInterface, add func(text []byte) error) error {
	for next := ""; ; {
		page, err := kind.List(ctx, metav1.ListOptions{Limit: pageSize, Continue: next})
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

func meshConfigFile(in io.Reader, name string) (*meshconfig.MeshConfig, error) {
	text, err := readUpTo(in, name, maxDocuments)
	if err != nil {
		return nil, err
	}
	mc, problems := config.DecodeMeshConfig(name, text)
	for _, p := range problems {
		if p.Severity == config.Error {
			return nil, p
		}
	}
	return mc, nil
}
