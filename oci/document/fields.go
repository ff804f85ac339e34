package document

import (
	"reflect"
	"strings"
)

// field is a field of a struct as JSON has it.
type field struct {
	name      string
	index     []int
	omitEmpty bool
}

// fieldsOf returns the fields of a struct, those of embedded ones among them. Of several with one name the outermost counts.
func fieldsOf(t reflect.Type) []field {
	list := make([]field, 0, t.NumField())
	var embedded []int
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" {
			continue
		}
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			embedded = append(embedded, i)
			continue
		}
		if !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		list = append(list, field{name, f.Index, options == "omitempty"})
	}
	for _, i := range embedded {
	inner:
		for _, f := range fieldsOf(t.Field(i).Type) {
			for _, outer := range list {
				if outer.name == f.name {
					continue inner
				}
			}
			f.index = append([]int{i}, f.index...)
			list = append(list, f)
		}
	}
	return list
}

func (d *decoder) fields(t reflect.Type) []field {
	list, ok := d.types[t]
	if !ok {
		list = fieldsOf(t)
		d.types[t] = list
	}
	return list
}
