package apply

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/lateen-mesh/lateen/control/config"
)

// parallel bounds the requests that are under way.
const parallel = 6

// workload is the last rank.
const workload = 3

// rank orders kinds: what others live in or are described by comes first, and pods
// last, which read all the rest.
func rank(d config.Document) int {
	switch d.Object.Kind {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	case "Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController":
		return workload
	}
	return 2
}

// offerAll applies the engine's own documents, then those of files: what the engine runs is on its
// way meanwhile.
func (a *Applier) offerAll(ctx context.Context, docs []config.Document) (failed []config.Problem, reached bool) {
	own := func(d config.Document) bool { return d.Source.File == "" }
	failed, reached = a.offer(ctx, slices.DeleteFunc(slices.Clone(docs), func(d config.Document) bool { return !own(d) }))
	if !reached {
		return failed, reached
	}
	more, reached := a.offer(ctx, slices.DeleteFunc(slices.Clone(docs), own))
	return append(failed, more...), reached
}

// offer applies documents, rank by rank. It reports what was refused, and whether the
// API was there to answer.
func (a *Applier) offer(ctx context.Context, docs []config.Document) (failed []config.Problem, reached bool) {
	reached = true
	for r := range workload + 1 {
		some := slices.DeleteFunc(slices.Clone(docs), func(d config.Document) bool { return rank(d) != r })
		if r == workload && a.o.Hold != nil && slices.ContainsFunc(some, func(d config.Document) bool { return d.Source.File != "" }) {
			a.o.Hold(ctx)
		}
		var mu sync.Mutex
		a.each(some, func(d config.Document) {
			err := a.apply(ctx, d)
			if err == nil {
				return
			}
			a.reset(err)
			mu.Lock()
			defer mu.Unlock()
			reached = reached && !unreachable(err)
			failed = append(failed, refusals(d, err)...)
		})
	}
	slices.SortFunc(failed, func(x, y config.Problem) int { return strings.Compare(x.Error(), y.Error()) })
	return failed, reached
}

// each calls do for all documents, a few at a time.
func (a *Applier) each(docs []config.Document, do func(config.Document)) {
	var running sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, d := range docs {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			do(d)
		})
	}
	running.Wait()
}

func (a *Applier) apply(ctx context.Context, d config.Document) error {
	id := identify(d)
	gv, err := schema.ParseGroupVersion(d.APIVersion)
	if err != nil {
		return err
	}
	r, err := a.resource(gv.WithKind(id.Kind), id.Namespace)
	if err != nil {
		return err
	}
	if a.once[id] {
		return a.create(ctx, r, d, gv.Version)
	}
	force := true
	_, err = r.Patch(ctx, id.Name, types.ApplyPatchType, d.JSON, metav1.PatchOptions{
		FieldManager: FieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return err
	}
	a.note(d, gv.Version)
	return nil
}

// create makes an object that is to be there, whatever it says.
func (a *Applier) create(ctx context.Context, r dynamic.ResourceInterface, d config.Document, version string) error {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(d.JSON); err != nil {
		return err
	}
	_, err := r.Create(ctx, object, metav1.CreateOptions{FieldManager: FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	a.note(d, version)
	return nil
}

// note keeps that the API has an object as a document says.
func (a *Applier) note(d config.Document, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unsure, identify(d))
	a.applied[identify(d)] = record{Version: version, File: d.Source.File, Line: d.Source.Line, Hash: hash(d)}
}

// missing looks once for each object that an earlier run applied, and returns those that
// the API has not. Known is false while it cannot tell of some.
func (a *Applier) missing(ctx context.Context, docs []config.Document) (missing []config.Document, known bool) {
	known = true
	a.mu.Lock()
	docs = slices.DeleteFunc(slices.Clone(docs), func(d config.Document) bool { return !a.unsure[identify(d)] })
	a.mu.Unlock()
	a.each(docs, func(d config.Document) {
		err := a.look(ctx, d)
		if err != nil {
			a.reset(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case err == nil:
			delete(a.unsure, identify(d))
		case apierrors.IsNotFound(err):
			missing = append(missing, d)
		default:
			known = false
		}
	})
	return missing, known
}

// look asks the API for the object of a document.
func (a *Applier) look(ctx context.Context, d config.Document) error {
	id := identify(d)
	gv, err := schema.ParseGroupVersion(d.APIVersion)
	if err != nil {
		return err
	}
	r, err := a.resource(gv.WithKind(id.Kind), id.Namespace)
	if err != nil {
		return err
	}
	_, err = r.Get(ctx, id.Name, metav1.GetOptions{})
	return err
}

// resource finds where objects of a kind are.
func (a *Applier) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	m, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	r := a.client.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameRoot {
		return r, nil
	}
	return r.Namespace(namespace), nil
}

// withdraw deletes what files no longer have.
func (a *Applier) withdraw(ctx context.Context, gone map[identity]record) (failed []config.Problem) {
	for id, rec := range gone {
		r, err := a.resource(schema.GroupVersionKind{Group: id.Group, Version: rec.Version, Kind: id.Kind}, id.Namespace)
		if err == nil {
			background := metav1.DeletePropagationBackground
			err = r.Delete(ctx, id.Name, metav1.DeleteOptions{PropagationPolicy: &background})
		}
		if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
			failed = append(failed, config.Problem{Source: config.Source{File: rec.File, Line: rec.Line},
				Object: config.Key{Kind: config.Kind(id.Kind), Namespace: id.Namespace, Name: id.Name}, Message: "cannot be deleted: " + err.Error()})
			continue
		}
		a.mu.Lock()
		delete(a.applied, id)
		a.mu.Unlock()
	}
	return failed
}

// unreachable tells an API that is away from one that refuses.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || apierrors.IsServiceUnavailable(err)
}

// refusals says why a document was refused: one Problem for each field that the API
// names, with its line.
func refusals(d config.Document, err error) []config.Problem {
	p := config.Problem{Source: d.Source, Object: d.Object, Message: err.Error()}
	if meta.IsNoMatchError(err) {
		p.Message = "no such kind in " + d.APIVersion
		p.Hint = "apply its CustomResourceDefinition, or correct apiVersion and kind"
		return []config.Problem{p}
	}
	if status := (*apierrors.StatusError)(nil); errors.As(err, &status) && status.ErrStatus.Details != nil {
		var all []config.Problem
		for _, c := range status.ErrStatus.Details.Causes {
			if c.Field == "" {
				continue
			}
			at := p
			at.Field, at.Message, at.Source.Line = c.Field, c.Message, d.Line(c.Field)
			all = append(all, at)
		}
		if len(all) > 0 {
			return all
		}
	}
	if field := unknownField(p.Message); field != "" {
		p.Field, p.Message, p.Source.Line = field, "unknown field", d.Line(field)
	}
	return []config.Problem{p}
}

// unknownField takes the path out of the server's sentence about a field that no schema
// has: `.spec.http: field not declared in schema` or `unknown field "spec.htp"`.
func unknownField(message string) string {
	if _, rest, ok := strings.Cut(message, `unknown field "`); ok {
		field, _, _ := strings.Cut(rest, `"`)
		return field
	}
	if before, _, ok := strings.Cut(message, ": field not declared in schema"); ok {
		return strings.TrimPrefix(before[strings.LastIndexByte(before, ' ')+1:], ".")
	}
	return ""
}
