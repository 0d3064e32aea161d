package server

import (
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	informersv1 "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/client-go/tools/cache"
)

// listGroups keeps the groups of custom resources in the list at /apis, in the form
// before aggregated discovery, which upstream fills with built-in groups only.
func listGroups(definitions informersv1.CustomResourceDefinitionInformer, list discovery.GroupManager) error {
	update := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		changed, ok := object.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			return
		}
		all, err := definitions.Lister().List(labels.Everything())
		if err != nil {
			return
		}
		if group := customGroup(changed.Spec.Group, all); len(group.Versions) > 0 {
			list.AddGroup(group)
		} else {
			list.RemoveGroup(changed.Spec.Group)
		}
	}
	_, err := definitions.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    update,
		UpdateFunc: func(_, object any) { update(object) },
		DeleteFunc: update,
	})
	return err
}

// customGroup collects the served versions of a group, the most stable first.
func customGroup(name string, definitions []*apiextensionsv1.CustomResourceDefinition) metav1.APIGroup {
	var versions []string
	for _, definition := range definitions {
		if definition.Spec.Group != name || !established(definition) {
			continue
		}
		for _, v := range definition.Spec.Versions {
			if v.Served && !slices.Contains(versions, v.Name) {
				versions = append(versions, v.Name)
			}
		}
	}
	slices.SortFunc(versions, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
	group := metav1.APIGroup{Name: name}
	for _, v := range versions {
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	if len(group.Versions) > 0 {
		group.PreferredVersion = group.Versions[0]
	}
	return group
}
