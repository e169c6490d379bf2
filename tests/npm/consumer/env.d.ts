/** What Vite makes of an import that ends so: the file's URL. */
declare module "*?url" {
  const url: string;
  export default url;
}
