package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	typedv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
)

// appliedFile remembers, in the state directory, which definitions were applied from
// which text, so that a start with the same text costs nothing.
const appliedFile = "definitions.json"

type appliedRecord struct {
	Sum   string   `json:"sum"`
	Names []string `json:"names"`
}

// applyDefinitions creates or updates the definitions in the files of the options,
// and returns when all of them are established. A definition that a user changed
// stays changed until the files change.
func (a *api) applyDefinitions(ctx context.Context, o Options) error {
	if o.Definitions == "" {
		return nil
	}
	text, err := readDefinitions(o.Definitions)
	if err != nil {
		return err
	}
	if !cache.WaitForCacheSync(ctx.Done(), a.definitions.Informer().HasSynced) {
		return ctx.Err()
	}
	record := filepath.Join(o.State, appliedFile)
	sum := hash(string(text))
	if a.unchanged(record, sum) {
		return nil
	}
	client, err := clientset.NewForConfig(a.config)
	if err != nil {
		return err
	}
	definitions, err := decodeDefinitions(text)
	if err != nil {
		return err
	}
	applied := appliedRecord{Sum: sum}
	for _, definition := range definitions {
		if err := applyDefinition(ctx, client.ApiextensionsV1().CustomResourceDefinitions(), definition); err != nil {
			return fmt.Errorf("CustomResourceDefinition %s: %w", definition.Name, err)
		}
		applied.Names = append(applied.Names, definition.Name)
	}
	if err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) {
		return a.established(applied.Names), nil
	}); err != nil {
		return err
	}
	return applied.write(record)
}

func (r appliedRecord) write(path string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, line, 0o600)
}

// decodeDefinitions reads the definitions of a text; other objects are left out.
func decodeDefinitions(text []byte) (all []*apiextensionsv1.CustomResourceDefinition, err error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 64<<10)
	for {
		var d apiextensionsv1.CustomResourceDefinition
		switch err := decoder.Decode(&d); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case d.Kind == "CustomResourceDefinition" && d.Name != "":
			all = append(all, &d)
		}
	}
}

// readDefinitions returns the text of a file, or of all YAML and JSON files of a
// directory in the order of their names.
func readDefinitions(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return text, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, entry := range entries {
		if entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(entry.Name())) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(path, entry.Name()))
		if err != nil {
			return nil, err
		}
		all = append(append(all, text...), "\n---\n"...)
	}
	return all, nil
}

// unchanged reports whether the same text was applied before and all of it is there.
func (a *api) unchanged(record, sum string) bool {
	line, err := os.ReadFile(record)
	if err != nil {
		return false
	}
	var before appliedRecord
	return json.Unmarshal(line, &before) == nil && before.Sum == sum && a.established(before.Names)
}

func (a *api) established(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		definition, err := a.definitions.Lister().Get(name)
		return err != nil || !established(definition)
	})
}

func applyDefinition(ctx context.Context, client typedv1.CustomResourceDefinitionInterface, want *apiextensionsv1.CustomResourceDefinition) error {
	_, err := client.Create(ctx, want, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := client.Get(ctx, want.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		changed := have.DeepCopy()
		changed.Spec = want.Spec
		changed.Spec.Conversion = have.Spec.Conversion // defaulted by the server
		changed.Labels, changed.Annotations = want.Labels, want.Annotations
		if equality.Semantic.DeepEqual(have, changed) {
			return nil
		}
		_, err = client.Update(ctx, changed, metav1.UpdateOptions{})
		return err
	})
}
