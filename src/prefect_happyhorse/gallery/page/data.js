// What `happyhorse gallery --export` writes here are the jobs themselves. A gallery that is served asks its server for them.
