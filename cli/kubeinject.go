package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/inject"
)

// injection is the flags of kube-inject.
type injection struct {
	connection
	file, output                                   string
	meshFile, injectFile, valuesFile, operatorFile string
	meshMap, injectMap, revision                   string

	operatorValues, operatorMesh []byte                       // of the IstioOperator, nil without
	maps                         map[string]*corev1.ConfigMap // read so far, by name
}

func newKubeInject() *cobra.Command {
	var i injection
	cmd := &cobra.Command{
		Use: "kube-inject -f FILE", Short: "Put sidecars into the pods of Kubernetes YAML",
		Long: `Put sidecars into the pods of Kubernetes YAML, as the mesh does it by itself in
namespaces with the label istio-injection=enabled. Templates, values and mesh configuration
are those of the mesh, from ConfigMaps istio-sidecar-injector and istio, or of files.

Documents without pods are passed on as they are.`,
		Example: `  kubectl apply -f <(istioctl kube-inject -f samples/bookinfo/platform/kube/bookinfo.yaml)
  kubectl get deployment -o yaml | istioctl kube-inject -f - | kubectl apply -f -`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return i.run(cmd) },
	}
	set := cmd.Flags()
	i.add(set)
	set.StringVarP(&i.file, "filename", "f", "", "file to inject, \"-\" is standard input")
	set.StringVarP(&i.output, "output", "o", "", "file to write to (default standard output)")
	set.StringVar(&i.meshFile, "meshConfigFile", "", "file with the MeshConfig, in place of the mesh's")
	set.StringVar(&i.injectFile, "injectConfigFile", "", "file with the templates, in place of the mesh's")
	set.StringVar(&i.valuesFile, "valuesFile", "", "file with the values, in place of the mesh's")
	set.StringVar(&i.operatorFile, "operatorFileName", "", "file of kind IstioOperator with values and meshConfig, in place of the mesh's")
	set.StringVar(&i.meshMap, "meshConfigMapName", config.MeshConfigMap, "ConfigMap with the MeshConfig, in the namespace of the control plane")
	set.StringVar(&i.injectMap, "injectConfigMapName", config.InjectorConfigMap, "ConfigMap with templates and values, in the namespace of the control plane")
	set.StringVar(new(string), "webhookConfig", config.InjectorConfigMap, "(accepted: templates and values are read)")
	set.StringVarP(&i.revision, "revision", "r", "", "revision of the control plane")
	return cmd
}

// maxDocuments bounds what is injected at once: it may be all that a namespace has.
const maxDocuments = 64 << 20

func (i *injection) run(cmd *cobra.Command) error {
	if i.file == "" {
		return wrongUsage(errors.New("nothing to inject"), "name a file: -f FILE, or -f - for standard input")
	}
	documents, err := readUpTo(cmd.InOrStdin(), i.file, maxDocuments)
	if err != nil {
		return err
	}
	settings, mesh, err := i.settings(cmd.Context())
	if err != nil {
		return err
	}
	tell := func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), "left as it is:", line) }
	request := inject.Request{Mesh: mesh, Revision: i.revision, NativeSidecars: true}
	injected, err := settings.Documents(documents, request, tell)
	if err != nil {
		return fmt.Errorf("%s: %w", i.file, err)
	}
	if i.output != "" {
		return os.WriteFile(i.output, injected, 0o644) //nolint:gosec // manifests are for everybody
	}
	_, err = cmd.OutOrStdout().Write(injected)
	return err
}

// settings reads what is put into pods: each part from its file, else from the
// IstioOperator, else from the mesh.
func (i *injection) settings(ctx context.Context) (*inject.Settings, *meshconfig.MeshConfig, error) {
	if err := i.readOperator(); err != nil {
		return nil, nil, err
	}
	templates, err := i.part(ctx, i.injectFile, nil, i.injectMap, inject.ConfigKey)
	if err != nil {
		return nil, nil, err
	}
	values, err := i.part(ctx, i.valuesFile, i.operatorValues, i.injectMap, inject.ValuesKey)
	if err != nil {
		return nil, nil, err
	}
	meshText, err := i.part(ctx, i.meshFile, i.operatorMesh, i.meshMap, config.MeshConfigKey)
	if err != nil {
		return nil, nil, err
	}
	settings, err := inject.Parse(templates, values)
	if err != nil {
		return nil, nil, fmt.Errorf("templates and values: %w", err)
	}
	mesh, problems := config.DecodeMeshConfig(i.meshFile, meshText)
	for _, p := range problems {
		if p.Severity == config.Error {
			return nil, nil, fmt.Errorf("mesh configuration: %w", p)
		}
	}
	return settings, mesh, nil
}

// readOperator takes values and mesh configuration out of the IstioOperator.
func (i *injection) readOperator() error {
	if i.operatorFile == "" {
		return nil
	}
	text, err := readFile(nil, i.operatorFile)
	if err != nil {
		return err
	}
	var operator struct {
		Kind string
		Spec struct{ Values, MeshConfig map[string]any }
	}
	if err := yaml.Unmarshal(text, &operator); err != nil {
		return fmt.Errorf("%s: %w", i.operatorFile, err)
	}
	if operator.Kind != "IstioOperator" {
		return fmt.Errorf("%s: kind is %q, not IstioOperator", i.operatorFile, operator.Kind)
	}
	if i.operatorValues, err = yaml.Marshal(operator.Spec.Values); err != nil {
		return err
	}
	i.operatorMesh, err = yaml.Marshal(operator.Spec.MeshConfig)
	return err
}

// part is the content of a file, else what is given, else a key of a ConfigMap.
func (i *injection) part(ctx context.Context, file string, given []byte, name, key string) ([]byte, error) {
	if file != "" {
		return readFile(nil, file)
	}
	if given != nil {
		return given, nil
	}
	if i.revision != "" && i.revision != "default" {
		name += "-" + i.revision
	}
	object, err := i.configMap(ctx, name)
	if err != nil {
		return nil, err
	}
	text, ok := object.Data[key]
	if !ok {
		return nil, fmt.Errorf("ConfigMap %s/%s has no key %q", i.istioNamespace, name, key)
	}
	return []byte(text), nil
}

// configMap reads a ConfigMap of the mesh, once.
func (i *injection) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	if known := i.maps[name]; known != nil {
		return known, nil
	}
	mesh, err := i.connect()
	if err != nil {
		return nil, err
	}
	object, err := mesh.API().CoreV1().ConfigMaps(i.istioNamespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, withHint(err, "is the mesh installed there, and is that the revision? -i NAMESPACE, -r REVISION; or give files: --injectConfigFile, --valuesFile, --meshConfigFile")
	}
	if err != nil {
		return nil, noAPI(err)
	}
	if i.maps == nil {
		i.maps = map[string]*corev1.ConfigMap{}
	}
	i.maps[name] = object
	return object, nil
}
