package registry

import "context"

type authKey struct{}

// WithAuth returns a context that carries the credentials of a client for several registries, for what cannot know beforehand which one it will ask. of takes the full name of a repository.
func WithAuth(ctx context.Context, of func(repository string) Auth) context.Context {
	return context.WithValue(ctx, authKey{}, of)
}

// AuthOf returns the credentials for a repository, by its full name, that a context carries; without any, none.
func AuthOf(ctx context.Context, repository string) Auth {
	of, ok := ctx.Value(authKey{}).(func(string) Auth)
	if !ok {
		return Auth{}
	}
	return of(repository)
}
