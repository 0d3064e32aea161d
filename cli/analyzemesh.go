package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	meshconfig "istio.io/api/mesh/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/lateen-mesh/lateen/control/analyze"
	"github.com/lateen-mesh/lateen/control/config"
)

// readMesh adds the objects of the mesh that runs. Kinds that the user may not read are
// told of, and left out of the analysis.
func (a *analysis) readMesh(ctx context.Context, m *analyze.Mesh, errs io.Writer) error {
	api, _, err := a.open(ctx)
	if err != nil {
		return err
	}
	kinds, err := a.kinds(api, func(group, kind string) bool {
		return slices.Contains(analyze.Resources(), analyze.Resource{Group: group, Kind: kind})
	})
	if err != nil {
		return err
	}
	for _, k := range kinds {
		err := k.each(ctx, m.AddObject)
		if apierrors.IsForbidden(err) {
			fmt.Fprintf(errs, "Warning: %s is not analyzed: %v\n", k.plural, err)
			m.Lacks(analyze.Resource{Group: k.group, Kind: k.kind})
		} else if err != nil {
			return fmt.Errorf("%s: %w", k.plural, err)
		}
	}
	return nil
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
