"""What a person sees of an artifact: asset pages, MLflow entries, reports with plots."""
