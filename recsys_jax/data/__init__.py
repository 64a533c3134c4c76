"""Files to arrays: values, tables, schema, dataset, features, splits."""
